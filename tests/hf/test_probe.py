"""How a layer rotates: models with two sets of frequencies, and models that cannot be probed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import inf_llm
from inf_llm.errors import (
    UnsupportedModelError,
)
from tests.hf.families import build
from tests.hf.tiny import (
    SHORT,
    tiny,
    tokens,
)
from tests.hf.zoo import BASE, Family, rope

FIRST = 64  # the first set is for texts up to this length
SHORT_SCALE, LONG_SCALE = [1.1] * 8, [2.0] * 8
SCALES: dict[str, Any] = {"short_factor": SHORT_SCALE, "long_factor": LONG_SCALE}
FAMILIES = {
    "llama": Family(
        "Llama",
        {
            **BASE,
            "max_position_embeddings": 512,
            **rope("longrope", original_max_position_embeddings=FIRST, **SCALES),
        },
    ),
    "phi3": Family(
        "Phi3",
        {
            **BASE,
            "max_position_embeddings": 512,
            "original_max_position_embeddings": FIRST,
            **rope("longrope", original_max_position_embeddings=FIRST, **SCALES),
        },
    ),
    "phimoe, whose sets differ in amplitude": Family(
        "Phimoe",
        {
            **BASE,
            "max_position_embeddings": 512,
            "original_max_position_embeddings": FIRST,
            **rope(
                "longrope",
                original_max_position_embeddings=FIRST,
                short_mscale=1.1,
                long_mscale=1.3,
                **SCALES,
            ),
        },
    ),
}
TYPES: dict[str, dict[str, Any]] = {
    "stream-lm": {"n_init": 4},
    "infinite-lm": {"n_init": 4},
    "inf-llm": {"n_init": 4, "exc_block_size": 16, "block_size": 8, "topk": 2},
}


def _apart(family: str, count: int, **settings: Any) -> float:
    model = build(FAMILIES[family])

    def logits() -> Tensor:
        with torch.no_grad():
            return model(tokens(count)).logits

    own = logits()
    inf_llm.patch(model, **settings)
    return float((logits() - own).abs().max() / own.abs().max())


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("count", [FIRST + 1, 150])
def test_a_window_longer_than_the_first_set_is_for_takes_the_second(
    family: str, kind: str, count: int
) -> None:
    assert _apart(family, count, type=kind, n_local=256, **TYPES[kind]) < 2e-5


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_window_that_the_first_set_is_for_takes_it(family: str, kind: str) -> None:
    window = FIRST - 4 - (16 if kind == "inf-llm" else 0)
    settings = {"type": kind, **TYPES[kind]}
    assert _apart(family, window, n_local=window, **settings) < 2e-5
    assert _apart(family, window, n_local=window + 1, **settings) > 1e-3, "the sets do the same"


def test_moved_positions_start_from_the_second_set() -> None:
    settings = {"type": "origin", "distance_scale": 1 + 1e-9}  # by nothing that shows
    assert _apart("llama", 150, **settings) < 2e-5


def _without_weights(model: Any) -> None:
    model.to("meta")


def _with_a_layer_without_weights(model: Any) -> None:
    model.model.layers[1].to("meta")


def _in_two_dtypes(model: Any) -> None:
    model.model.layers[1].to(torch.bfloat16)


def _damaged(model: Any) -> None:
    model.model.layers[1].self_attn.q_proj.weight.data[0, 0] = float("nan")


def _damaged_before_a_layer(model: Any) -> None:
    model.model.layers[0].mlp.down_proj.weight.data[0, 0] = float("inf")


BROKEN: dict[Callable[[Any], None], str] = {
    _without_weights: "weights are on the meta device",
    _with_a_layer_without_weights: "does not run unpatched either",
    _in_two_dtypes: "does not run unpatched either.*dtype",
    _damaged: "layer 1 .* not finite",
    _damaged_before_a_layer: "layer 1 .* not finite",
}


@pytest.mark.parametrize("spoil", BROKEN)
def test_a_refusal_names_its_own_cause(spoil: Callable[[Any], None]) -> None:
    model = tiny()
    spoil(model)
    with pytest.raises(UnsupportedModelError, match=BROKEN[spoil]):
        inf_llm.patch(model, type="inf-llm", **SHORT)
