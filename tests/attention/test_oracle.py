"""Equal to what the published code computed: outputs, recalled blocks and representatives."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from inf_llm.attention.inf_llm import InfLLMAttention
from inf_llm.testing import replay
from tests.attention.dense import Turn, dense
from tests.attention.published import FIXTURES, cases, load
from tests.layers import read_representatives

TOLERANCE = 1e-4


def as_published(representatives: torch.Tensor, units: int) -> torch.Tensor:
    """(B, H, blocks, D) as (units, blocks, heads of a unit * D)."""
    B, H, blocks, D = representatives.shape
    grouped = representatives.view(units, B * H // units, blocks, D)
    return grouped.transpose(1, 2).reshape(units, blocks, -1)


@pytest.mark.parametrize("path", cases())
def test_equals_the_published_outputs(path: Path) -> None:
    case = load(path)
    got = replay(*case.qkv, **case.arguments)
    assert (got.o - case.tensors["o"]).abs().max() < TOLERANCE
    if "topk" in case.tensors:
        assert got.topk == case.topk
    else:
        assert got.topk is None


@pytest.mark.parametrize("kernel", ["reference", "fused"])
def test_every_kernel_equals_the_published_outputs(kernel: str) -> None:
    case = load(FIXTURES / "inf_llm_perhead.safetensors")
    got = replay(*case.qkv, **case.arguments, kernel=kernel)
    assert (got.o - case.tensors["o"]).abs().max() < TOLERANCE
    assert got.topk == case.topk


@pytest.mark.parametrize("path", cases())
def test_the_dense_statement_equals_the_published_outputs(path: Path) -> None:
    """The tests' own yardstick, measured by the same rule."""
    case = load(path)
    settings = dict(case.arguments)
    turn = Turn(base=settings.pop("base"), scale=settings.pop("distance_scale"))
    got = dense(*case.qkv, turn=turn, **settings)
    assert abs(torch.from_numpy(got.o) - case.tensors["o"]).max() < TOLERANCE
    if "topk" not in case.tensors:
        return
    assert got.topk == case.topk
    published = case.tensors["block_k"]
    ours = as_published(torch.from_numpy(got.representatives), published.shape[0])
    assert (ours - published).abs().max() < TOLERANCE


@pytest.mark.parametrize("name", ["inf_llm_lru_s_mqa", "inf_llm_perhead"])
def test_equals_the_published_representatives(name: str) -> None:
    case = load(FIXTURES / f"{name}.safetensors")
    layer = replay(*case.qkv, **case.arguments).layer
    assert isinstance(layer, InfLLMAttention)
    published = case.tensors["block_k"]
    ours = as_published(read_representatives(layer, heads=4, width=16), published.shape[0])
    assert (ours - published).abs().max() < TOLERANCE
