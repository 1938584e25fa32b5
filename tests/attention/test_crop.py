"""Going back: after `crop`, everything goes on as if the forgotten tokens had never come."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from inf_llm.attention.base import LayerAttention
from inf_llm.errors import CropError
from tests.attention.draws import examples, memory_settings
from tests.extras import changes
from tests.layers import (
    EVERY_TYPE,
    Qkv,
    feed,
    joined,
    make_layer,
    make_memory_layer,
    random_qkv,
    tokens_of,
)

CLOSE: dict[str, Any] = {"atol": 2e-6, "rtol": 2e-6}


def guess_and_go_back(
    layer: LayerAttention, text: Qkv, guess: Qkv, rest: Qkv, kept: int
) -> torch.Tensor:
    """Feed a text, then a guess of which `kept` tokens stay, then the rest; outputs of the rest."""
    feed(layer, text)
    layer.decode_from(text[0].shape[2])
    layer.record()
    feed(layer, guess)
    layer.crop(guess[0].shape[2] - kept)
    assert layer.seen == text[0].shape[2] + kept
    return feed(layer, rest)


@pytest.mark.parametrize("kept", [0, 1, 7, 12])
@pytest.mark.parametrize("tokens", [5, 24, 33, 100])
@pytest.mark.parametrize("kind", EVERY_TYPE)
def test_as_if_it_had_never_come(kind: str, tokens: int, kept: int) -> None:
    text, guess, rest = (random_qkv(n, seed=n) for n in (tokens, 13, 40))
    got = guess_and_go_back(make_layer(kind), text, guess, rest, kept)
    straight = make_layer(kind)
    straight.decode_from(tokens)
    want = feed(straight, joined(text, tokens_of(guess, 0, kept), rest))
    torch.testing.assert_close(got, want[:, :, tokens + kept :], **CLOSE)


@examples(30)
@given(st.data())
def test_any_settings(data: st.DataObject) -> None:
    settings = data.draw(memory_settings())
    slots = data.draw(st.booleans())
    sizes = data.draw(st.tuples(st.integers(1, 70), st.integers(2, 30), st.integers(1, 40)))
    kept = data.draw(st.integers(0, sizes[1] - 1))
    text, guess, rest = (random_qkv(n, rows=2, seed=i) for i, n in enumerate(sizes))
    layer = make_memory_layer(slots=slots, **settings)
    got = guess_and_go_back(layer, text, guess, rest, kept)
    straight = make_memory_layer(slots=slots, **settings)
    straight.decode_from(sizes[0])
    want = feed(straight, joined(text, tokens_of(guess, 0, kept), rest))
    torch.testing.assert_close(got, want[:, :, sizes[0] + kept :], **CLOSE)


@pytest.mark.parametrize("change", changes([{}, {"faiss": True}, {"perhead": True}]), ids=str)
@pytest.mark.parametrize("slots", [False, True], ids=["home", "slots"])
def test_many_rounds(slots: bool, change: dict[str, Any]) -> None:
    """As assisted decoding does: guess, keep some, go back, over and over, across seals."""
    layer, straight = (make_memory_layer(slots=slots, **change) for _ in range(2))
    text = random_qkv(60)
    for one in (layer, straight):
        feed(one, text)
        one.decode_from(60)
    layer.record()
    for turn in range(25):
        guess = random_qkv(7, seed=turn)
        kept = turn * 5 % 8
        right = tokens_of(feed_and_return(layer, guess), 0, kept)
        layer.crop(7 - kept)
        if kept:
            want = feed(straight, tokens_of(guess, 0, kept))
            torch.testing.assert_close(right[0], want, **CLOSE)
        assert layer.seen == straight.seen
        assert layer.stats().blocks == straight.stats().blocks
        assert layer.stats().host_bytes == straight.stats().host_bytes


def feed_and_return(layer: LayerAttention, qkv: Qkv) -> Qkv:
    output = feed(layer, qkv)
    return output, output, output


def test_back_to_the_start_of_an_execution_block() -> None:
    """Without `decode_from`, feeds are the points to go back to, and blocks inside them."""
    text, guess, rest = (random_qkv(n, seed=n) for n in (40, 20, 30))
    layer = make_layer()
    feed(layer, text)
    layer.record()
    feed(layer, guess)  # blocks of 8, 8 and 4
    layer.crop(4)
    got = feed(layer, rest)
    want = feed(make_layer(), joined(text, tokens_of(guess, 0, 16), rest), [40, 16, 30])
    torch.testing.assert_close(got, want[:, :, 56:], **CLOSE)


@pytest.mark.parametrize("kind", EVERY_TYPE)
def test_no_way_back(kind: str) -> None:
    layer = make_layer(kind)
    feed(layer, random_qkv(100))
    with pytest.raises(CropError, match="cannot go back to 99 of 100 tokens"):
        layer.crop(1)
    layer.record()
    feed(layer, random_qkv(30), [10, 20])
    with pytest.raises(CropError, match="110"):
        layer.crop(3)
    assert layer.seen == 130
    layer.crop(20)
    assert layer.seen == 110


def test_crop_of_nothing_forgets_the_way_back() -> None:
    """What was accepted stays: older points are dropped, so that notes do not pile up."""
    layer = make_layer()
    layer.record()
    feed(layer, random_qkv(20), [1] * 20)
    layer.crop(0)
    with pytest.raises(CropError):
        layer.crop(1)
    feed(layer, random_qkv(3), [1] * 3)
    layer.crop(2)
    assert layer.seen == 21


def test_blocks_sealed_by_a_wrong_guess_are_freed() -> None:
    layer = make_layer()
    feed(layer, random_qkv(64))
    before = layer.stats()
    layer.record()
    feed(layer, random_qkv(60))
    assert layer.stats().blocks > before.blocks
    layer.crop(60)
    after = layer.stats()
    assert (after.tokens, after.blocks) == (before.tokens, before.blocks)
    assert after.host_bytes == before.host_bytes


def test_a_rollback_forgets_points_behind_it() -> None:
    """They are of tokens that are no more: `crop` goes back to those that came in their place."""
    text, gone, other, more = (random_qkv(n, seed=n) for n in (40, 17, 16, 30))
    layer, straight = make_memory_layer(), make_memory_layer()
    layer.record()
    feed(layer, text)
    state = layer.checkpoint()
    feed(layer, gone)
    layer.rollback(state)
    feed(layer, other)
    layer.crop(8)
    feed(straight, text)
    feed(straight, tokens_of(other, 0, 8))
    assert torch.equal(feed(layer, more), feed(straight, more))
