"""Branches and rows: forks that part, rows that are reordered, repeated or dropped."""

from __future__ import annotations

import copy
import gc
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from inf_llm.attention.inf_llm import InfLLMAttention
from inf_llm.errors import CropError
from tests.attention.draws import examples, memory_settings
from tests.extras import changes
from tests.layers import (
    EVERY_TYPE,
    feed,
    joined,
    make_layer,
    make_memory_layer,
    random_qkv,
    rows_of,
    tokens_of,
)

CLOSE: dict[str, Any] = {"atol": 5e-6, "rtol": 5e-6}
LENGTHS = [1, 20, 24, 29, 60, 100]


def blocks_in_use(layer: InfLLMAttention) -> int:
    store = layer.memory.store
    return 0 if store is None else store.used()


@pytest.mark.parametrize("tokens", LENGTHS)
@pytest.mark.parametrize("kind", EVERY_TYPE)
def test_forks_part(kind: str, tokens: int) -> None:
    text, one, two = (random_qkv(n, rows=2, seed=n) for n in (tokens, 50, 51))
    layer = make_layer(kind)
    feed(layer, text)
    twin = layer.fork()
    feeds = [20] + [1] * 30
    got_one = feed(layer, one, feeds)
    got_two = feed(twin, two, [*feeds, 1])
    for got, rest, seen in ((got_one, one, layer.seen), (got_two, two, twin.seen)):
        assert seen == tokens + rest[0].shape[2]
        want = feed(make_layer(kind), joined(text, rest), [tokens, 20] + [1] * (seen - tokens - 20))
        torch.testing.assert_close(got, want[:, :, tokens:], **CLOSE)


@pytest.mark.parametrize("change", changes([{}, {"faiss": True}, {"perhead": True}]), ids=str)
@pytest.mark.parametrize("slots", [False, True], ids=["home", "slots"])
def test_forks_in_turns(slots: bool, change: dict[str, Any]) -> None:
    """Branches that share an store seal and recall in turns, token by token."""
    text = random_qkv(70)
    layer = make_memory_layer(slots=slots, **change)
    feed(layer, text)
    branches = [layer, layer.fork(), layer.fork()]
    rests = [random_qkv(40, seed=seed) for seed in (1, 2, 3)]
    got: list[list[torch.Tensor]] = [[], [], []]
    for i in range(40):
        for branch, rest, outputs in zip(branches, rests, got, strict=True):
            outputs.append(feed(branch, tokens_of(rest, i, i + 1)))
    for rest, outputs in zip(rests, got, strict=True):
        alone = make_memory_layer(slots=slots, **change)
        want = feed(alone, joined(text, rest), [70] + [1] * 40)
        torch.testing.assert_close(torch.cat(outputs, 2), want[:, :, 70:], **CLOSE)


def test_forks_share_blocks_and_give_them_back() -> None:
    layer = make_memory_layer()
    feed(layer, random_qkv(100, rows=2))
    shared = blocks_in_use(layer)
    assert shared == 2 * layer.stats().blocks
    twin = layer.fork()
    assert blocks_in_use(layer) == shared, "a fork copies nothing"
    feed(twin, random_qkv(60, rows=2))
    assert blocks_in_use(layer) == shared + 2 * 10
    del twin
    gc.collect()
    assert blocks_in_use(layer) == shared
    feed(layer, random_qkv(60, rows=2))
    assert blocks_in_use(layer) == shared + 2 * 10


def test_a_fork_outlives_its_origin() -> None:
    text, rest = random_qkv(100), random_qkv(50, seed=1)
    layer = make_memory_layer(slots=True)
    feed(layer, text)
    twin = layer.fork()
    feed(layer, random_qkv(64, seed=2))
    del layer
    gc.collect()
    assert blocks_in_use(twin) == twin.stats().blocks
    got = feed(twin, rest)
    want = feed(make_memory_layer(), joined(text, rest), [100, 50])
    torch.testing.assert_close(got, want[:, :, 100:], **CLOSE)


def test_blocks_of_a_dead_fork_are_written_anew() -> None:
    """A number that is free again must not bring back what it meant before."""
    text, rest = random_qkv(100), random_qkv(60, seed=1)
    layer = make_memory_layer(slots=True)
    feed(layer, text)
    for seed in range(5):
        twin = layer.fork()
        feed(twin, random_qkv(50, seed=seed))
        del twin
    got = feed(layer, rest)
    want = feed(make_memory_layer(), joined(text, rest), [100, 60])
    torch.testing.assert_close(got, want[:, :, 100:], **CLOSE)


SELECTIONS = {
    "reorder": [2, 0, 1],
    "repeat": [0, 0, 1, 1, 2, 2],
    "drop": [1],
    "one of them thrice": [2, 2, 2],
    "mixed": [1, 0, 1],
}


@pytest.mark.parametrize("rows", SELECTIONS.values(), ids=SELECTIONS)
@pytest.mark.parametrize("tokens", LENGTHS)
@pytest.mark.parametrize("kind", EVERY_TYPE)
def test_rows_go_on_as_themselves(kind: str, tokens: int, rows: list[int]) -> None:
    text = random_qkv(tokens, rows=3)
    rest = random_qkv(50, rows=len(rows), seed=1)
    layer = make_layer(kind)
    feed(layer, text)
    layer.select_rows(torch.tensor(rows))
    feeds = [20] + [1] * 30
    got = feed(layer, rest, feeds)
    want = feed(make_layer(kind), joined(rows_of(text, rows), rest), [tokens, *feeds])
    torch.testing.assert_close(got, want[:, :, tokens:], **CLOSE)


@examples(30)
@given(st.data())
def test_beams(data: st.DataObject) -> None:
    """Rows rearranged again and again between single tokens, as beam search does."""
    settings = data.draw(memory_settings())
    layer = make_memory_layer(slots=data.draw(st.booleans()), **settings)
    count = data.draw(st.integers(1, 3))
    history = random_qkv(data.draw(st.integers(1, 60)), rows=count)
    prompt = history[0].shape[2]
    feed(layer, history)
    expected = None
    for turn in range(data.draw(st.integers(1, 4))):
        rows = data.draw(st.lists(st.integers(0, count - 1), min_size=1, max_size=4))
        count = len(rows)
        layer.select_rows(torch.tensor(rows))
        new = random_qkv(data.draw(st.integers(1, 12)), rows=count, seed=turn)
        history = joined(rows_of(history, rows), new)
        got = feed(layer, new, [1] * new[0].shape[2])
        fresh = make_memory_layer(**settings)
        tokens = history[0].shape[2]
        expected = feed(fresh, history, [prompt] + [1] * (tokens - prompt))
        torch.testing.assert_close(got, expected[:, :, -new[0].shape[2] :], **CLOSE)


def test_dropped_rows_give_their_blocks_back() -> None:
    layer = make_memory_layer()
    feed(layer, random_qkv(100, rows=3))
    blocks = layer.stats().blocks
    assert blocks_in_use(layer) == 3 * blocks
    layer.select_rows(torch.tensor([1, 1, 2]))
    assert blocks_in_use(layer) == 2 * blocks
    layer.select_rows(torch.tensor([2]))
    assert blocks_in_use(layer) == blocks


def test_rows_of_a_fresh_layer() -> None:
    """Nothing was fed yet: any number of rows may come."""
    for kind in EVERY_TYPE:
        layer = make_layer(kind)
        layer.select_rows(torch.tensor([0, 0]))
        feed(layer, random_qkv(40, rows=2))


@pytest.mark.parametrize("kind", EVERY_TYPE)
def test_rows_and_the_way_back(kind: str) -> None:
    """Notes of other rows are of no use: going back past a selection is refused, not garbage."""
    layer = make_layer(kind)
    feed(layer, random_qkv(60, rows=2))
    layer.record()
    feed(layer, random_qkv(5, rows=2), [1] * 5)
    layer.select_rows(torch.tensor([1, 0, 1]))
    with pytest.raises(CropError):
        layer.crop(3)
    feed(layer, random_qkv(5, rows=3), [1] * 5)
    layer.crop(2)
    assert layer.seen == 68


@pytest.mark.parametrize("rows", [[0, 0, 1], [1]], ids=str)
def test_rows_after_every_block_was_forgotten(rows: list[int]) -> None:
    layer = make_memory_layer()
    text = random_qkv(25, rows=2)
    feed(layer, text)
    assert layer.stats().blocks == 0
    layer.record()
    feed(layer, random_qkv(40, rows=2, seed=1))
    assert layer.stats().blocks > 0
    layer.crop(40)
    layer.select_rows(torch.tensor(rows))
    rest = random_qkv(60, rows=len(rows), seed=2)
    got = feed(layer, rest)
    want = feed(make_memory_layer(), joined(rows_of(text, rows), rest), [25, 60])
    torch.testing.assert_close(got, want[:, :, 25:], **CLOSE)


def test_forks_of_a_recording_layer_have_notes_of_their_own() -> None:
    layer = make_layer()
    feed(layer, random_qkv(60))
    layer.record()
    feed(layer, random_qkv(3), [1] * 3)
    twin = layer.fork()
    feed(twin, random_qkv(4), [1] * 4)
    twin.crop(2)
    layer.crop(1)
    assert (layer.seen, twin.seen) == (62, 65)
    with pytest.raises(CropError):
        twin.crop(3)


def test_a_branch_that_vanishes_while_blocks_are_sealed() -> None:
    """The collector of garbage comes when it likes, also in the middle of taking blocks."""
    layer = make_memory_layer()
    feed(layer, random_qkv(200))
    store = layer.memory.store
    assert store is not None
    before = store.used()
    twin = layer.fork()
    feed(twin, random_qkv(60, seed=1))
    assert store.used() > before
    with store.allocator._lock:  # as if it came while the store is busy
        del twin
        gc.collect()
    assert store.used() == before


def test_a_deep_copy_is_a_fork() -> None:
    layer = make_memory_layer()
    feed(layer, random_qkv(100))
    twin = copy.deepcopy(layer)
    later = random_qkv(9, seed=1)
    assert torch.equal(feed(twin, later), feed(layer, later))
    assert twin.memory.store is layer.memory.store
