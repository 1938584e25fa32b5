"""A prompt read with full attention, and answers from the memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from inf_llm.testing import replay
from tests.layers import MEMORY, feed, make_memory_layer, random_qkv, tokens_of

CLOSE: dict[str, Any] = {"atol": 2e-5, "rtol": 2e-5}
DENSE = MEMORY | {"prefill": "dense"}
choosers = pytest.mark.parametrize("perhead", [False, True], ids=["together", "perhead"])


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inf_llm.attention.inf_llm._TILE", 3 * MEMORY["block_size"] + 1)


def outputs(feeds: list[int], kind: str = "inf-llm", rows: int = 1, **settings: Any) -> Tensor:
    return replay(*random_qkv(sum(feeds), rows=rows), feeds=feeds, kind=kind, **settings).o


@choosers
@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("feeds", [[150], [70, 2, 78], [23, 40, 87]], ids=str)
def test_dense_is_full_attention(feeds: list[int], rows: int, perhead: bool) -> None:
    got = outputs(feeds, rows=rows, **DENSE, perhead=perhead)
    torch.testing.assert_close(got, outputs(feeds, "origin", rows), **CLOSE)
    sparse = outputs(feeds, rows=rows, **MEMORY, perhead=perhead)
    assert not torch.allclose(got, sparse, atol=1e-2)


def test_one_token_at_a_time_is_an_answer() -> None:
    """It is attended to as after a prompt read sparsely, from what is kept of the same tokens."""
    qkv, steps = random_qkv(150), random_qkv(6, seed=1)
    mean = {"repr_topk": MEMORY["block_size"]}  # sees no difference in what was attended to
    layers = [make_memory_layer(**mean, prefill=prefill) for prefill in ("sparse", "dense")]
    for layer in layers:
        feed(layer, qkv)
    got, want = (feed(layer, steps, [1] * 6) for layer in layers)
    assert torch.equal(got, want)


def test_auto_is_dense_at_first() -> None:
    feeds = [96, 48, 48]
    got = outputs(feeds, **MEMORY, prefill="auto", dense_up_to=100)
    full, sparse = outputs(feeds, "origin"), outputs(feeds, **MEMORY)
    torch.testing.assert_close(got[:, :, :96], full[:, :, :96], **CLOSE)
    assert not torch.allclose(got[:, :, 104:], full[:, :, 104:], atol=1e-2)
    assert not torch.allclose(got[:, :, :96], sparse[:, :, :96], atol=1e-2)


def test_branches_read_on_densely() -> None:
    """Rows whose blocks are numbered in another order than they stand."""
    qkv, more = random_qkv(150, rows=2), random_qkv(60, rows=2, seed=1)
    layer = make_memory_layer(**DENSE)
    feed(layer, qkv)
    rows = torch.tensor([1, 0, 1])
    layer.select_rows(rows)
    branch = layer.fork()
    later = tuple(x[rows] for x in more)
    got = feed(branch, later)
    whole = tuple(torch.cat((a[rows], b), 2) for a, b in zip(qkv, later, strict=True))
    want = replay(*whole, feeds=[150, 60], kind="origin").o[:, :, 150:]
    torch.testing.assert_close(got, want, **CLOSE)
    assert torch.equal(feed(layer, tokens_of(later, 0, 60)), got)
