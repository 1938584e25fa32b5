"""What must not change a result: how a text is cut, what is evicted, where blocks lie, garbage."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from inf_llm import kernels
from inf_llm.attention.inf_llm import InfLLMAttention
from inf_llm.memory.block_store import BlockStore
from inf_llm.memory.tiers import PinnedTier
from inf_llm.rope import Rope
from inf_llm.settings import make_settings
from inf_llm.testing import replay
from tests.attention.draws import examples, memory_settings, traffic_settings
from tests.extras import changes
from tests.layers import (
    MEMORY,
    feed,
    make_memory_layer,
    random_qkv,
    read_representatives,
    rule,
    tokens_of,
)

PAGES = {key: value for key, value in MEMORY.items() if key != "repr_topk"} | {"block_size": 8}
CLOSE: dict[str, Any] = {"atol": 2e-6, "rtol": 2e-6}


def cuts(total: int) -> st.SearchStrategy[list[int]]:
    """Ways to cut `total` execution blocks into feeds."""
    inside = st.sets(st.integers(1, total - 1), max_size=total - 1)
    return inside.map(lambda at: _lengths([0, *sorted(at), total]))


def _lengths(ends: list[int]) -> list[int]:
    return [end - begin for begin, end in itertools.pairwise(ends)]


@examples(30)
@given(st.data())
def test_feeds_of_whole_execution_blocks_may_be_cut_anywhere(data: st.DataObject) -> None:
    settings = data.draw(memory_settings())
    size = settings["exc_block_size"]
    feeds = [size * blocks for blocks in data.draw(cuts(8))]
    qkv = random_qkv(8 * size, seed=data.draw(st.integers(0, 99)))
    at_once = replay(*qkv, feeds=[8 * size], kind="inf-llm", **settings)
    in_pieces = replay(*qkv, feeds=feeds, kind="inf-llm", **settings)
    torch.testing.assert_close(in_pieces.o, at_once.o, **CLOSE)
    assert in_pieces.topk == at_once.topk


def test_the_window_is_computed_while_blocks_are_on_their_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They are waited for only when what is far is attended to."""
    order = []
    fetch, attend = BlockStore.fetch, kernels.attend

    def fetching(store: BlockStore, blocks: Tensor) -> Any:
        order.append("sent for")
        places, arrive = fetch(store, blocks)
        return places, lambda: (order.append("arrived"), arrive())[1]

    def attending(*args: Any) -> Any:
        order.append("attends")
        return attend(*args)

    monkeypatch.setattr(BlockStore, "fetch", fetching)
    monkeypatch.setattr(kernels, "attend", attending)
    feed(make_memory_layer(slots=True), random_qkv(80), how=rule(kernel="reference"))
    last = len(order) - order[::-1].index("sent for") - 1
    assert order[last:] == ["sent for", "attends", "arrived", "attends"]


def test_other_cuts_do_change_the_choice() -> None:
    """The control for the test above."""
    qkv = random_qkv(160)
    at_once = replay(*qkv, feeds=[160], kind="inf-llm", **MEMORY)
    in_pieces = replay(*qkv, feeds=[100, 60], kind="inf-llm", **MEMORY)
    assert (at_once.o - in_pieces.o).abs().max() > 0.01


@pytest.mark.parametrize("kind", ["origin", "infinite-lm", "stream-lm"])
@examples(10)
@given(feeds=cuts(90))
def test_types_without_blocks_may_be_cut_anywhere(kind: str, feeds: list[int]) -> None:
    settings: dict[str, Any] = {} if kind == "origin" else {"n_init": 4, "n_local": 16}
    qkv = random_qkv(90)
    at_once = replay(*qkv, feeds=[90], kind=kind, **settings).o
    torch.testing.assert_close(replay(*qkv, feeds=feeds, kind=kind, **settings).o, at_once, **CLOSE)


@examples(15)
@given(settings=memory_settings(), traffic=traffic_settings(), more=st.integers(0, 20))
def test_eviction_index_and_room_never_change_a_result(
    settings: dict[str, Any], traffic: dict[str, Any], more: int
) -> None:
    qkv, feeds = random_qkv(110, rows=2, seed=more), [70, 25] + [1] * 15
    other = settings | traffic | {"max_cached_block": settings["max_cached_block"] + more}
    one = replay(*qkv, feeds=feeds, kind="inf-llm", **settings)
    two = replay(*qkv, feeds=feeds, kind="inf-llm", **other)
    assert one.topk == two.topk
    torch.testing.assert_close(one.o, two.o, **CLOSE)


@examples(20)
@given(settings=memory_settings(), seed=st.integers(0, 99))
def test_slots_give_what_the_tier_gives(settings: dict[str, Any], seed: int) -> None:
    qkv, feeds = random_qkv(110, rows=2, seed=seed), [70, 25] + [1] * 15
    direct, copied = (make_memory_layer(slots=slots, **settings) for slots in (False, True))
    torch.testing.assert_close(feed(copied, qkv, feeds), feed(direct, qkv, feeds), **CLOSE)
    mine, theirs = copied.stats(), direct.stats()
    counts = ("blocks", "hits", "misses", "loads", "evictions", "host_bytes")
    assert [getattr(mine, name) for name in counts] == [getattr(theirs, name) for name in counts]


@pytest.mark.parametrize("slots", [False, True], ids=["tier", "slots"])
@pytest.mark.parametrize("perhead", [False, True], ids=["together", "perhead"])
@pytest.mark.parametrize("stays", [False, True], ids=["a slab that moves", "many slabs"])
def test_where_blocks_lie_changes_nothing(
    slots: bool, perhead: bool, stays: bool, monkeypatch: pytest.MonkeyPatch, device: torch.device
) -> None:
    qkv, feeds = random_qkv(200, rows=2, device=device), [150, 25] + [1] * 25
    one = feed(make_memory_layer(slots=slots, perhead=perhead), qkv, feeds)
    for name, room in (("_SLAB_BYTES", 5000), ("_FIRST_BYTES", 1000)):
        monkeypatch.setattr(f"inf_llm.memory.tiers.{name}", room)
    if stays and device.type == "cpu":  # page-locked where there is a GPU, as it is anyway
        monkeypatch.setattr(PinnedTier, "pinned", False)
        monkeypatch.setattr("inf_llm.memory.tiers.HostTier", PinnedTier)
    many = feed(make_memory_layer(slots=slots, perhead=perhead), qkv, feeds)
    torch.testing.assert_close(many, one, **CLOSE)


@pytest.mark.parametrize("perhead", [False, True], ids=["together", "perhead"])
def test_overlapped_copies(perhead: bool, device: torch.device) -> None:
    """`async_global_stream` and `pin_memory` have an effect on CUDA only, and never on a result."""
    qkv, feeds = random_qkv(200, rows=2, device=device), [150, 25] + [1] * 25
    outputs = [
        feed(make_memory_layer(perhead=perhead, async_global_stream=a, pin_memory=p), qkv, feeds)
        for a, p in ((False, False), (True, True), (True, False))
    ]
    for other in outputs[1:]:
        torch.testing.assert_close(other, outputs[0], **CLOSE)


@pytest.mark.parametrize(
    "change",
    changes(
        [
            {},
            {"perhead": True},
            {"faiss": True},
            {"chunk_topk_calc": 2},
            {"cache_strategy": "lru-s"},
        ]
    ),
    ids=str,
)
@pytest.mark.parametrize("slots", [False, True], ids=["tier", "slots"])
def test_memory_nobody_wrote_is_never_read(
    slots: bool, change: dict[str, Any], poisoned_memory: None
) -> None:
    qkv, feeds = random_qkv(130, rows=2), [70, 25] + [1] * 35
    outputs = feed(make_memory_layer(slots=slots, **change), qkv, feeds)
    assert outputs.isfinite().all()
    assert torch.empty(3).isnan().all(), "the fixture does not poison"


def test_memory_nobody_wrote_changes_nothing(request: pytest.FixtureRequest) -> None:
    qkv, feeds = random_qkv(130, rows=2), [70, 25] + [1] * 35
    clean = feed(make_memory_layer(slots=True), qkv, feeds)
    request.getfixturevalue("poisoned_memory")
    dirty = feed(make_memory_layer(slots=True), qkv, feeds)
    torch.testing.assert_close(dirty, clean, atol=0, rtol=0)


@pytest.mark.parametrize("slots", [False, True], ids=["tier", "slots"])
@pytest.mark.parametrize("feeds", [[8] * 60, [1] * 480, [480]], ids=["blocks", "decode", "one"])
def test_device_bytes_stay_constant(feeds: list[int], slots: bool) -> None:
    layer = make_memory_layer(slots=slots)
    qkv = random_qkv(480 + 160)
    feed(layer, tokens_of(qkv, 0, 160))
    device_bytes, blocks = layer.stats().device_bytes, layer.stats().blocks
    feed(layer, tokens_of(qkv, 160), feeds)
    assert layer.stats().device_bytes == device_bytes
    assert layer.stats().blocks == blocks + 480 // MEMORY["block_size"]


def test_what_is_counted() -> None:
    layer = make_memory_layer(slots=True)
    qkv = random_qkv(200, rows=2)
    feed(layer, tokens_of(qkv, 0, 20))
    assert layer.stats().blocks == layer.stats().hits == layer.stats().host_bytes == 0
    feed(layer, tokens_of(qkv, 20))
    stats = layer.stats()
    sealed = (200 - MEMORY["n_local"] - MEMORY["n_init"]) // MEMORY["block_size"]
    assert (stats.tokens, stats.blocks) == (200, sealed)
    assert stats.host_bytes == 2 * sealed * MEMORY["block_size"] * 2 * (16 + 16) * 4
    assert stats.index_bytes == 2 * sealed * 4 * 16 * 4
    assert stats.hits > 0
    assert stats.misses == stats.loads > MEMORY["max_cached_block"] * 2
    assert stats.evictions == stats.misses - 2 * MEMORY["max_cached_block"]


@pytest.mark.parametrize("slots", [False, True], ids=["tier", "slots"])
def test_alone_from_equals_decoding(slots: bool) -> None:
    qkv = random_qkv(170, rows=2)
    decoded = feed(make_memory_layer(slots=slots), qkv, [100] + [1] * 70)
    layer = make_memory_layer(slots=slots)
    layer.decode_from(100)
    guessed = feed(layer, qkv, [100, 30, 1, 39])
    torch.testing.assert_close(guessed, decoded, **CLOSE)


@examples(15)
@given(data=st.data(), start=st.integers(0, 60))
def test_alone_from_anywhere(data: st.DataObject, start: int) -> None:
    settings = data.draw(memory_settings())
    feeds = data.draw(cuts(70 - start)) if start < 69 else [70 - start]
    qkv = random_qkv(70)
    layer = make_memory_layer(**settings)
    layer.decode_from(start)
    before = [start] if start else []
    guessed = feed(layer, qkv, before + feeds)
    decoded = feed(make_memory_layer(**settings), qkv, before + [1] * (70 - start))
    torch.testing.assert_close(guessed, decoded, **CLOSE)


def test_alone_from_inside_a_feed() -> None:
    """A feed that reaches past the mark is cut there, and one by one from it on."""
    qkv = random_qkv(90)
    layer = make_memory_layer()
    layer.decode_from(70)
    got = feed(layer, qkv, [90])
    want = feed(make_memory_layer(), qkv, [70] + [1] * 20)
    torch.testing.assert_close(got, want, **CLOSE)


def test_perhead_reads_pages_of_its_own_key_head() -> None:
    """Heads of one group choose apart but read the same keys; see the representatives too."""
    layer = make_memory_layer(perhead=True)
    qkv = random_qkv(150)
    feed(layer, qkv)
    assert layer.recalled is not None
    choices = {tuple(unit) for unit in layer.recalled.blocks[0].tolist()}
    assert len(choices) > 1
    representatives = read_representatives(layer, heads=4, width=16)
    assert representatives.shape == (1, 4, layer.stats().blocks, 16)
    k = qkv[1]
    block = int(layer.recalled.blocks[0, 3, 0])
    first = MEMORY["n_init"] + block * MEMORY["block_size"]
    last = first + MEMORY["block_size"]
    torch.testing.assert_close(layer.recalled.k[0, 3, : last - first], k[0, 1, first:last])


def test_reselect_every_shares_one_choice_between_decode_steps():
    """Steps 0, 3, 6, ... after the prompt choose; those between keep the choice."""
    q, k, v = (
        torch.randn(1, 2, 300, 16, generator=torch.Generator().manual_seed(s)) for s in range(3)
    )
    settings = {"n_init": 4, "n_local": 32, "block_size": 8, "topk": 3, "exc_block_size": 16}
    feeds = [280] + [1] * 20
    every = replay(q, k, v, feeds=feeds, kind="inf-llm", **settings).topk[-20:]
    third = replay(q, k, v, feeds=feeds, kind="inf-llm", reselect_every=3, **settings).topk[-20:]

    assert third == [third[step - step % 3] for step in range(20)]
    assert third[0] == every[0]
    assert len({str(step) for step in every}) > len({str(step) for step in third})


@examples(40)
@given(st.data())
@torch.no_grad()
def test_rows_with_memories_of_their_own_are_as_alone(data: st.DataObject) -> None:
    """Decode steps of several memories at once: outputs, what is recalled, and what is counted."""
    settings = data.draw(memory_settings().map(lambda drawn: MEMORY | drawn) | st.just(PAGES))
    lengths = data.draw(st.lists(st.integers(1, 150), min_size=2, max_size=4))
    seed = data.draw(st.integers(0, 99))
    members = []
    for row, length in enumerate(lengths):
        made = make_settings("inf-llm", **settings)
        members.append(InfLLMAttention(Rope.from_base(16, 10000.0), made))  # type: ignore[arg-type]
        feed(members[-1], random_qkv(length, seed=seed + row))
    alone = [member.fork() for member in members]
    for step in range(12):
        qkv = random_qkv(1, rows=len(members), seed=1000 + step)
        together = InfLLMAttention.attend_each(members, *qkv, rule())
        rows = zip(alone, *(part.split(1) for part in qkv), strict=True)
        single = torch.cat([member.attend(*row, rule()) for member, *row in rows])
        torch.testing.assert_close(together, single, **CLOSE)
        for member, other in zip(members, alone, strict=True):
            assert (member.recalled is None) == (other.recalled is None)
            if member.recalled is not None:
                assert torch.equal(member.recalled.blocks, other.recalled.blocks)
    for member, other in zip(members, alone, strict=True):
        assert member.seen == other.seen
        assert member.stats() == other.stats()
