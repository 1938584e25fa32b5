"""Blocks sealed, found and fetched again, whole rows or head by head, with slots and without."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from inf_llm.memory.block_store import BlockStore
from inf_llm.memory.codec import PageShape, RawCodec
from inf_llm.memory.search import Query
from inf_llm.settings import InfLLMSettings, make_settings
from inf_llm.variants import SELECTION
from tests.extras import with_faiss

H, G, TOKENS, D, DV = 4, 2, 3, 8, 5
SHAPE = PageShape(G, TOKENS, D, DV, torch.float32)

both_ways = pytest.mark.parametrize("slots", [False, True], ids=["home", "slots"])
every_policy = pytest.mark.parametrize("policy", ["lru", "fifo", "lru-s"])


def make(
    slots: bool, rows: int = 2, room: int = 3, summaries: int = H, **settings: Any
) -> BlockStore:
    sizes = {"block_size": TOKENS, "repr_topk": 1, "topk": 2, "max_cached_block": room}
    chosen = make_settings("inf-llm", **sizes, **settings)
    assert isinstance(chosen, InfLLMSettings)
    selection = chosen.selection.build(SELECTION, H, G, summaries)
    return BlockStore(chosen, SHAPE, selection, 1, rows, torch.device("cpu"), slots)


def sealed(store: BlockStore, count: int, rows: int = 2, seed: int = 0) -> tuple[Any, ...]:
    """Numbers (B, n), keys, values, representatives of `count` new blocks of every row."""
    generator = torch.Generator().manual_seed(seed)
    k = torch.randn(rows, G, count, TOKENS, D, generator=generator)
    v = torch.randn(rows, G, count, TOKENS, DV, generator=generator)
    vectors = torch.randn(rows, H, count, 1, D, generator=generator)
    return store.add(k, v, vectors), k, v, vectors


def fetch(store: BlockStore, blocks: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Keys, values and slots of physical blocks (B, X, k)."""
    places, arrive = store.fetch(blocks)
    return *arrive(), places


@both_ways
@every_policy
def test_rows_fetch_whole_blocks(slots: bool, policy: str) -> None:
    store = make(slots, cache_strategy=policy)
    numbers, k, v, _ = sealed(store, 7)
    for step in range(12):
        chosen = torch.stack([torch.randperm(7)[:2] for _ in range(2)])
        got_k, got_v, places = fetch(store, numbers.gather(1, chosen)[:, None])
        store.observed(places, torch.rand(2, H, 2))
        assert got_k.shape == (2, G, 2 * TOKENS, D)
        for b in range(2):
            assert torch.equal(got_k[b], k[b][:, chosen[b]].flatten(1, 2)), step
            assert torch.equal(got_v[b], v[b][:, chosen[b]].flatten(1, 2)), step


@both_ways
@every_policy
def test_heads_fetch_pages_of_their_own(slots: bool, policy: str) -> None:
    store = make(slots, perhead=True, cache_strategy=policy)
    numbers, k, v, _ = sealed(store, 7)
    for step in range(12):
        chosen = torch.stack([torch.randperm(7)[:2] for _ in range(2 * H)]).view(2, H, 2)
        physical = numbers[:, None].expand(-1, H, -1).gather(2, chosen)
        got_k, got_v, places = fetch(store, physical)
        store.observed(places, torch.rand(2, H, 2))
        assert got_k.shape == (2, H, 2 * TOKENS, D)
        for b in range(2):
            for h in range(H):
                g = h // (H // G)
                assert torch.equal(got_k[b, h], k[b, g, chosen[b, h]].flatten(0, 1)), step
                assert torch.equal(got_v[b, h], v[b, g, chosen[b, h]].flatten(0, 1)), step


@pytest.mark.parametrize("perhead", [False, True], ids=["together", "perhead"])
def test_heads_may_share_representatives(perhead: bool) -> None:
    """One vector a key head finds the same as copies of it for every query head."""
    shared, copied = (make(False, rows=1, summaries=n, perhead=perhead) for n in (G, H))
    k, v = (torch.randn(1, G, 9, TOKENS, width) for width in (D, DV))
    vectors = torch.randn(1, G, 9, 1, D)
    shared.add(k, v, vectors)
    copied.add(k, v, vectors.repeat_interleave(H // G, 1))
    query = Query(torch.randn(1, H, 1, D))
    mine, theirs = (store.search(query, 2, 9, None) for store in (shared, copied))
    assert torch.equal(mine[0], theirs[0])
    torch.testing.assert_close(mine[1], theirs[1])
    assert shared.index.nbytes * (H // G) == copied.index.nbytes


@pytest.mark.parametrize("perhead", [False, True], ids=["together", "perhead"])
def test_search_adds_up_the_heads_of_a_unit(perhead: bool) -> None:
    store = make(False, rows=1, perhead=perhead)
    _, _, _, vectors = sealed(store, 9, rows=1)
    query = Query(torch.randn(1, H, 1, D))
    scores = torch.einsum("bhqd,bhnpd->bhn", query.vectors, vectors)
    scores = scores if perhead else scores.sum(1, keepdim=True)
    numbers, values = store.search(query, 2, 9, None)
    best = scores.topk(2).indices.sort(-1).values
    assert torch.equal(numbers, best)
    torch.testing.assert_close(values, scores.gather(-1, best))


@both_ways
@pytest.mark.parametrize("perhead", [False, True], ids=["together", "perhead"])
def test_a_number_used_again_means_the_new_block(slots: bool, perhead: bool) -> None:
    store = make(slots, perhead=perhead)
    groups = H if perhead else 1

    def ask(numbers: torch.Tensor) -> torch.Tensor:
        return fetch(store, numbers[:, None].expand(-1, groups, -1))[0]

    for seed in range(6):
        numbers, k, _, _ = sealed(store, 2, seed=seed)
        want = k.flatten(2, 3).repeat_interleave(H // G if perhead else 1, 1)
        assert torch.equal(ask(numbers), want)
        assert torch.equal(ask(numbers), want)
        store.release(numbers.flatten())
    assert store.allocator.count == 4
    assert store.allocator.used == 0
    if not perhead:  # heads that share a key head ask for one page twice
        assert int(store.slots.traffic().evictions) == 0


@both_ways
@pytest.mark.parametrize("perhead", [False, True], ids=["together", "perhead"])
def test_rows_that_share_blocks(slots: bool, perhead: bool) -> None:
    """Copies of one row ask for the same blocks at once; any number of them may come."""
    store = make(slots, rows=1, perhead=perhead)
    numbers, k, _, _ = sealed(store, 5, rows=1)
    groups = H if perhead else 1
    for rows in (1, 3, 2, 5):
        store.make_room(rows)
        for chosen in ([0, 1], [1, 4], [0, 3], [2, 4], [0, 1]):
            blocks = numbers[0, chosen].expand(rows, groups, 2)
            got = fetch(store, blocks)[0]
            want = k[:, :, chosen].flatten(2, 3).repeat_interleave(H // G if perhead else 1, 1)
            assert torch.equal(got, want.expand(rows, -1, -1, -1))


def test_bytes_of_the_slots() -> None:
    block = RawCodec(SHAPE).block_bytes
    assert make(False).cache_bytes == 0
    assert make(True).cache_bytes == 2 * 3 * block
    assert make(True, perhead=True).cache_bytes == 2 * 3 * H * block // G


@with_faiss
def test_faiss_by_setting() -> None:
    one, two = make(False, rows=1), make(False, rows=1, faiss=True)
    for store in (one, two):
        sealed(store, 9, rows=1)
    query = Query(torch.randn(1, H, 1, D))
    assert type(one.index.index) is not type(two.index.index)
    assert torch.equal(one.search(query, 2, 9, None)[0], two.search(query, 2, 9, None)[0])


@both_ways
def test_more_rows_forget_no_counts(slots: bool) -> None:
    store = make(slots, rows=1)
    numbers, *_ = sealed(store, 6, rows=1)
    for _ in range(3):
        fetch(store, numbers[:, None, :2])
    before = _counts(store)
    assert before == (4, 2, 0)
    store.make_room(2)
    assert _counts(store) == before
    fetch(store, numbers[:, None, 2:4])
    assert _counts(store) == (4, 4, 0)


def _counts(store: BlockStore) -> tuple[int, int, int]:
    traffic = store.slots.traffic()
    return int(traffic.hits), int(traffic.misses), int(traffic.evictions)
