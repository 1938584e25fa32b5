"""State of the types without blocks, and the windows that models have of their own."""

from __future__ import annotations

import pytest
import torch

from inf_llm.attention.window import ChunkedAttention, WindowAttention
from inf_llm.rope import Rope
from tests.layers import WINDOW, feed, make_layer, random_qkv, tokens_of

ROPE = Rope.from_base(16, 10000.0)


def plain(qkv: tuple[torch.Tensor, ...], seen: torch.Tensor) -> torch.Tensor:
    """Attention under a boolean matrix (queries, keys), every position rotated."""
    q, k, v = qkv
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
    scores = ROPE.rotate(q, 0) @ ROPE.rotate(k, 0).transpose(-1, -2) / 4
    return scores.masked_fill(~seen, -torch.inf).softmax(-1) @ v


FEEDS = {"one": [150], "ragged": [1, 60, 33, 1, 55], "decode": [1] * 150}


@pytest.mark.parametrize("feeds", FEEDS.values(), ids=FEEDS)
@pytest.mark.parametrize("n_local", [1, 20, 64, 200, None])
def test_window_of_a_model(n_local: int | None, feeds: list[int]) -> None:
    qkv = random_qkv(150, rows=2)
    distance = torch.arange(150)[:, None] - torch.arange(150)
    seen = (distance >= 0) & (distance < (n_local or 150))
    got = feed(WindowAttention(ROPE, n_local), qkv, feeds)
    torch.testing.assert_close(got, plain(qkv, seen), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("feeds", FEEDS.values(), ids=FEEDS)
@pytest.mark.parametrize("chunk", [1, 7, 64, 100, 200])
def test_chunks_see_only_themselves(chunk: int, feeds: list[int]) -> None:
    qkv = random_qkv(150, rows=2)
    at = torch.arange(150)
    seen = (at[:, None] >= at) & (at[:, None] // chunk == at // chunk)
    got = feed(ChunkedAttention(ROPE, chunk), qkv, feeds)
    torch.testing.assert_close(got, plain(qkv, seen), atol=1e-5, rtol=1e-5)


def test_chunks_longer_than_what_is_computed_at_once() -> None:
    qkv = random_qkv(1500, (1, 1))
    at = torch.arange(1500)
    seen = (at[:, None] >= at) & (at[:, None] // 700 == at // 700)
    got = feed(ChunkedAttention(ROPE, 700), qkv, [1400, 100])
    torch.testing.assert_close(got, plain(qkv, seen), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["infinite-lm", "stream-lm"])
@pytest.mark.parametrize("feeds", [[64] * 20, [1] * 1280, [1280]], ids=["blocks", "decode", "one"])
def test_device_bytes_stay_constant(kind: str, feeds: list[int]) -> None:
    layer = make_layer(kind)
    qkv = random_qkv(1280 + 200)
    feed(layer, tokens_of(qkv, 0, 200))
    before = layer.stats()
    feed(layer, tokens_of(qkv, 200), feeds)
    after = layer.stats()
    assert after.device_bytes == before.device_bytes
    assert (before.tokens, after.tokens) == (200, 1480)
    assert after.blocks == after.host_bytes == after.misses == 0
    held = WINDOW["n_init"] + WINDOW["n_local"] + 64
    assert after.device_bytes <= 2 * held * 2 * 2 * 16 * 4


@pytest.mark.parametrize("kind", ["infinite-lm", "stream-lm"])
def test_a_short_text_is_seen_in_full(kind: str) -> None:
    qkv = random_qkv(WINDOW["n_local"])
    full = plain(qkv, torch.ones(24, 24).tril().bool())
    torch.testing.assert_close(feed(make_layer(kind), qkv), full, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["infinite-lm", "stream-lm"])
def test_memory_nobody_wrote_is_never_read(kind: str, poisoned_memory: None) -> None:
    outputs = feed(make_layer(kind), random_qkv(300, rows=2), [170, 100] + [1] * 30)
    assert outputs.isfinite().all()
