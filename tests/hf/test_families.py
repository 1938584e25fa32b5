"""A patched model computes what it did, family by family, and refuses what it cannot reproduce.

`python -m tests.hf.families` prints the whole table; `-m slow` runs the rows left out by default.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

import inf_llm
from inf_llm.errors import UnsupportedModelError
from tests.hf.families import FITS, TOLERANCE, TOO_SMALL, build, exists, measure, measure_rounded
from tests.hf.zoo import REFUSED, WORKING, Family


def _rows(families: dict[str, Family]) -> list[Any]:
    return [
        pytest.param(name, marks=[] if family.quick else pytest.mark.slow)
        for name, family in families.items()
    ]


def _skip_if_unknown(family: Family) -> None:
    if not exists(family):
        pytest.skip(f"this transformers has no {family.class_names[1]}")


def _hooks(model: torch.nn.Module) -> int:
    return sum(
        len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()
    )


@pytest.mark.parametrize("name", _rows(WORKING))
def test_a_context_that_fits_the_window_gives_the_models_own_logits(name: str) -> None:
    family = WORKING[name]
    _skip_if_unknown(family)
    row = measure(family)
    assert row.differences == pytest.approx(dict.fromkeys(row.differences, 0), abs=TOLERANCE)
    assert row.restored, "unpatching did not give the same logits again"
    assert min(row.controls.values()) > 500 * TOLERANCE, f"this row cannot fail: {row}"


@pytest.mark.parametrize("name", _rows(WORKING))
def test_in_bfloat16_a_patched_model_rounds_no_worse_than_the_model_itself(name: str) -> None:
    family = WORKING[name]
    _skip_if_unknown(family)
    row = measure_rounded(family)
    assert row.right, row
    assert row.own > 1e-3, f"this row rounds too little to show anything: {row}"


@pytest.mark.parametrize("name", _rows(REFUSED))
def test_a_model_that_cannot_be_reproduced_is_refused_and_left_alone(name: str) -> None:
    family = REFUSED[name]
    _skip_if_unknown(family)
    model = build(family)
    ids = torch.arange(5, 25)[None]
    with torch.no_grad():
        before = model(ids).logits
    attributes, hooks = set(model.__dict__), _hooks(model)
    with pytest.raises(UnsupportedModelError) as refusal:
        inf_llm.patch(model, type="inf-llm", **FITS)
    assert family.refused in str(refusal.value)
    assert type(model).__name__ in str(refusal.value)
    assert model.config._attn_implementation == "eager"
    assert (set(model.__dict__), _hooks(model)) == (attributes, hooks)
    with torch.no_grad():
        assert torch.equal(model(ids).logits, before)


@pytest.mark.parametrize("kind", ["infinite-lm", "stream-lm", "inf-llm"])
def test_a_model_of_sliding_layers_only_changes_when_they_are_overridden(kind: str) -> None:
    model = build(REFUSED["mistral-sliding"])
    settings = TOO_SMALL if kind == "inf-llm" else {"n_local": 8, "n_init": 2}
    ids = torch.arange(5, 105)[None]
    with torch.no_grad():
        before = model(ids).logits
        with pytest.raises(UnsupportedModelError, match="native_window to 'override'"):
            inf_llm.patch(model, type=kind, **settings, native_window="keep")
        inf_llm.patch(model, type=kind, **settings, native_window="override")
        after = model(ids).logits
    assert float((after - before).abs().max()) > 0.1 * float(before.abs().max())


@pytest.mark.parametrize("name", ["gemma3", "gpt_oss", "llama4"])
def test_layers_with_a_window_of_their_own_keep_it(name: str) -> None:
    """Long past the native windows of 64, only the full layers may change."""
    model = build(WORKING[name])
    ids = torch.randint(3, 128, (1, 400), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        before = model(ids).logits
        inf_llm.patch(model, type="stream-lm", n_local=512, n_init=0)
        after = model(ids).logits
    assert float((after - before).abs().max()) <= TOLERANCE * float(before.abs().max())


def test_the_default_rows_are_few_and_the_table_is_long() -> None:
    assert len(WORKING) >= 60
    assert 10 <= sum(family.quick for family in WORKING.values()) <= 16
