"""The check of `patch`: it refuses whatever a model does that is not reproduced, in any dtype."""

from __future__ import annotations

import dataclasses
import sys
from typing import Any

import pytest
import torch
from torch import Tensor

import inf_llm
from inf_llm.errors import UnsupportedModelError
from inf_llm.hf import patch as patching
from inf_llm.hf.patch import patched
from tests.hf.controls import RIGHT, WRONG
from tests.hf.families import build
from tests.hf.tiny import SHORT, tiny, tokens
from tests.hf.zoo import BASE, WORKING, Family

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
FAMILIES = ["llama", "gemma2", "gpt_oss", "gemma3"]


def patch(model: Any) -> Any:
    return inf_llm.patch(model, type="inf-llm", **SHORT)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_that_attends_as_stated_is_accepted(family: str, dtype: torch.dtype) -> None:
    model = tiny(family).to(dtype)
    with RIGHT(model):
        patch(model)
    state = patched(model)
    assert state is not None
    assert state.checked == model.config.num_hidden_layers


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_that_does_something_else_is_refused(
    family: str, wrong: str, dtype: torch.dtype
) -> None:
    model = tiny(family).to(dtype)
    with (
        WRONG[wrong](model),
        pytest.raises(UnsupportedModelError, match=r"layer \d+ \(\w+\).* by [\d.]"),
    ):
        patch(model)
    patch(model)  # it was left as it was


@pytest.mark.parametrize("window", [63, 65, None])
def test_a_window_that_is_not_the_masks_is_refused(
    window: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, probe = tiny("gemma2"), patching.probe

    def probed(*args: Any) -> Any:
        facts = probe(*args)
        return {
            module: dataclasses.replace(fact, window=window) if fact.window else fact
            for module, fact in facts.items()
        }

    monkeypatch.setattr(patching, "probe", probed)
    with pytest.raises(UnsupportedModelError, match=r"layer 0 .* token \d+ (sees|does not see)"):
        patch(model)


def test_a_window_past_what_is_fed_is_compared_by_its_mask() -> None:
    config = {**WORKING["gemma2"].config, "sliding_window": 6000, "max_position_embeddings": 16384}
    model = build(Family("Gemma2", config))
    patch(model)
    assert patched(model).checked == 4  # type: ignore[union-attr]


def test_a_layer_that_looks_ahead_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny()
    file = sys.modules[type(model).__module__]
    make = file.create_causal_mask

    def both_ways(*args: Any, **kwargs: Any) -> Any:
        mask = make(*args, **kwargs)
        return torch.zeros_like(mask) if torch.is_tensor(mask) else mask

    monkeypatch.setattr(file, "create_causal_mask", both_ways)
    with pytest.raises(UnsupportedModelError, match="token 256 sees token 257, against the rule"):
        patch(model)


def test_a_bias_on_the_scores_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny()
    file = sys.modules[type(model).__module__]
    make = file.create_causal_mask

    def with_bias(*args: Any, **kwargs: Any) -> Any:
        mask = make(*args, **kwargs)
        return mask - 0.5 if torch.is_tensor(mask) else mask

    monkeypatch.setattr(file, "create_causal_mask", with_bias)
    with pytest.raises(UnsupportedModelError, match=r"layer 0 .* adds a bias"):
        patch(model)


def test_depth_and_large_activations_do_not_matter() -> None:
    """What refused bfloat16 checkpoints: their own rounding, grown from layer to layer."""
    model = build(Family("Llama", {**BASE, "num_hidden_layers": 12}, sharpness=12.0))
    model = model.to(torch.bfloat16)
    ids = tokens(60)

    def logits(name: str) -> Tensor:
        model.set_attn_implementation(name)
        with torch.no_grad():
            return model(ids).logits.float()

    own, other = logits("sdpa"), logits("eager")
    apart = float((own - other).abs().max())
    assert apart > 0.05 * float(own.abs().max()), "this model rounds too little to show anything"
    patch(model)
