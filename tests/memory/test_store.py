"""Blocks come back as they were written, are held as often as said, and are used again."""

from __future__ import annotations

import copy
import gc
import mmap
import pickle
import sys
import threading
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from inf_llm.errors import UnsupportedInputError
from inf_llm.memory import store
from inf_llm.memory.store import Home, PageShape, Slots
from tests.attention.draws import examples

CPU = torch.device("cpu")
SHAPE = PageShape(heads=3, tokens=4, key_width=5, value_width=2, dtype=torch.float32)


@pytest.fixture(params=[0, 256], ids=["a slab at a time", "page by page"])
def few(request: pytest.FixtureRequest) -> int:
    """Up to how many pages are read one by one."""
    return int(request.param)


@pytest.fixture(params=[1, 7, 10_000], ids=lambda blocks: f"{blocks} blocks a slab")
def blocks_a_slab(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture(params=[True, False], ids=["moves", "stays"])
def home(
    request: pytest.FixtureRequest, blocks_a_slab: int, few: int, monkeypatch: pytest.MonkeyPatch
) -> Home:
    """One that moves, as on the host, or one whose slabs stay, as where a GPU reads them."""
    monkeypatch.setattr(store, "_FEW", few)
    monkeypatch.setattr(Home, "moves", request.param)
    for name in ("_FIRST_BYTES", "_SLAB_BYTES"):
        monkeypatch.setattr(store, name, blocks_a_slab * SHAPE.block_bytes)
    return Home(SHAPE, CPU, pinned=False)


def blocks_of(numbers: torch.Tensor, salt: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys and values that tell number, head, token and place."""
    k = torch.arange(3 * 4 * 5).view(3, 4, 5) + 1000.0 * numbers.view(-1, 1, 1, 1) + salt
    v = torch.arange(3 * 4 * 2).view(3, 4, 2) - 1000.0 * numbers.view(-1, 1, 1, 1) - salt
    return k, v


def test_bytes_of_a_block() -> None:
    assert SHAPE.block_bytes == 3 * 4 * 7 * 4
    assert PageShape(1, 8, 16, 16, torch.bfloat16).block_bytes == 8 * 32 * 2


def test_written_and_read(home: Home) -> None:
    for count in (1, 5, 3, 11):
        numbers = home.allocate(count)
        home.write(numbers, *blocks_of(numbers))
    assert home.used == home.count == 20
    assert home.nbytes == 20 * SHAPE.block_bytes
    pages = torch.randperm(60)
    k, v = home.read(pages)
    want_k, want_v = blocks_of(torch.arange(20))
    assert torch.equal(k, want_k.view(60, 20)[pages])
    assert torch.equal(v, want_v.view(60, 8)[pages])
    k, _ = home.read(torch.tensor([4, 4, 59]))
    assert torch.equal(k, want_k.view(60, 20)[[4, 4, 59]])


@pytest.mark.parametrize("count", [1, 2, 5, 40, 1000])
def test_a_home_has_room_for_twice_its_blocks_at_most(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "_FIRST_BYTES", 3 * SHAPE.block_bytes)
    home = Home(SHAPE, CPU, pinned=False)
    assert home._slabs == (), "nothing is reserved before there is a block"
    for _ in range(count):
        home.allocate(1)
    (slab,) = home._slabs
    reserved = sum(part.untyped_storage().nbytes() for part in slab)
    assert home.nbytes <= reserved <= max(3 * SHAPE.block_bytes, 2 * home.nbytes)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_is_taken_where_it_is_written() -> None:
    shape = PageShape(heads=1, tokens=128, key_width=128, value_width=128, dtype=torch.float32)
    home = Home(shape, CPU, pinned=False)
    gc.collect()
    before = _resident()
    home.allocate(1600)  # 200 MiB
    numbers = torch.arange(160)
    home.write(numbers, *torch.ones(2, 160, 1, 128, 128))
    assert 19 << 20 < _resident() - before < 60 << 20


def _resident() -> int:
    with open("/proc/self/statm") as file:  # noqa: PTH123
        return int(file.read().split()[1]) * mmap.PAGESIZE


def test_without_memory_for_more_a_home_stays_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "_FIRST_BYTES", 4 * SHAPE.block_bytes)
    home = Home(SHAPE, CPU, pinned=False)
    numbers = home.allocate(4)
    home.write(numbers, *blocks_of(numbers))
    home.release(torch.tensor([2]))

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("not enough memory")

    with monkeypatch.context() as patching:
        patching.setattr(store.torch, "empty", refuse)
        with pytest.raises(RuntimeError, match="not enough memory"):
            home.allocate(2)
    assert (home.count, home.used) == (4, 3)
    again = home.allocate(2)
    assert again.tolist() == [2, 4]
    home.write(again, *blocks_of(again))
    assert torch.equal(home.read(torch.arange(15))[0], blocks_of(torch.arange(5))[0].view(15, 20))


def test_a_slab_moves_while_others_read_and_write(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every thread finds what it wrote, whoever makes the slab move meanwhile."""
    monkeypatch.setattr(store, "_FIRST_BYTES", SHAPE.block_bytes)
    home = Home(SHAPE, CPU, pinned=False)
    wrong: list[int] = []

    def work() -> None:
        mine: list[int] = []
        for _ in range(120):
            numbers = home.allocate(3)
            home.write(numbers, *blocks_of(numbers))
            mine += numbers.tolist()
            own = torch.tensor(mine)
            if not torch.equal(home.read(own * 3)[0], blocks_of(own)[0][:, 0].flatten(1)):
                wrong.append(len(mine))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert home.used == 4 * 120 * 3


def test_a_home_is_not_written_anywhere() -> None:
    """Nor is what holds one; what is reserved would look like data."""
    home = Home(SHAPE, CPU, pinned=False)
    home.allocate(3)
    for write in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(UnsupportedInputError, match="a Home cannot be"):
            write(home)
    with pytest.raises(UnsupportedInputError, match="a Home cannot be"):
        pickle.dumps({"what has": [home]})


def test_written_with_gaps(home: Home) -> None:
    home.allocate(20)
    numbers = torch.tensor([1, 2, 9, 13, 19])
    home.write(numbers, *blocks_of(numbers))
    pages = numbers * 3 + 2
    assert torch.equal(home.read(pages)[0], blocks_of(numbers)[0][:, 2].flatten(1))


def test_held_until_the_last_lets_go(home: Home) -> None:
    numbers = home.allocate(4)
    home.hold(torch.tensor([1, 1, 2]))
    assert home.release(numbers).tolist() == [0, 3]
    assert home.used == 2
    assert home.release(torch.tensor([1, 2])).tolist() == [2]
    assert home.release(torch.tensor([1])).tolist() == [1]
    assert home.used == home.nbytes == 0


def test_repeated_numbers_are_let_go_at_once(home: Home) -> None:
    home.allocate(2)
    home.hold(torch.tensor([0, 0]))
    assert home.release(torch.tensor([0, 1, 0, 0])).tolist() == [0, 1]


@examples(40)
@given(data=st.data())
def test_any_holding(data: st.DataObject) -> None:
    """Against a plain count per block: never given twice, never lost."""
    home = Home(SHAPE, CPU, pinned=False)
    holders: dict[int, int] = {}
    for _ in range(data.draw(st.integers(10, 25))):
        held = sorted(holders)
        move = data.draw(st.sampled_from(["allocate", "hold", "release"]))
        if move == "allocate" or not held:
            numbers = home.allocate(data.draw(st.integers(1, 6))).tolist()
            assert numbers == sorted(set(numbers))
            assert not set(numbers) & set(held), "a block in use was given away"
            holders.update(dict.fromkeys(numbers, 1))
            continue
        chosen = data.draw(st.lists(st.sampled_from(held), min_size=1, max_size=8))
        if move == "hold":
            home.hold(torch.tensor(chosen))
            for number in chosen:
                holders[number] += 1
            continue
        chosen = [n for i, n in enumerate(chosen) if chosen[:i].count(n) < holders[n]]
        gone = home.release(torch.tensor(chosen)).tolist()
        for number in chosen:
            holders[number] -= 1
        assert gone == [number for number in held if not holders[number]]
        holders = {number: count for number, count in holders.items() if count}
        assert home.used == len(holders)
    assert home.used == len(holders)


def test_room_is_used_again() -> None:
    home = Home(SHAPE, CPU, pinned=False)
    for _ in range(50):
        home.release(home.allocate(10))
    assert home.count == 10


def test_several_threads() -> None:
    """Rows of several threads may seal into homes at once: no number is given twice."""
    home = Home(SHAPE, CPU, pinned=False)
    got: list[int] = []

    def work() -> None:
        for _ in range(100):
            numbers = home.allocate(3)
            home.hold(numbers)
            home.release(numbers)
            got.extend(numbers.tolist())

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == list(range(1200))
    assert home.used == 1200


@pytest.mark.parametrize("overlap", [False, True], ids=["in line", "overlapped"])
@pytest.mark.parametrize("pinned", [False, True], ids=["pageable", "pinned"])
def test_slots(pinned: bool, overlap: bool, device: torch.device) -> None:
    if pinned and device.type == "cpu":
        pytest.skip("only CUDA copies from page-locked memory")
    home = Home(SHAPE, CPU, pinned)
    numbers = home.allocate(10)
    home.write(numbers, *(x.to(device) for x in blocks_of(numbers)))
    slots = Slots(home, 6, device, overlap)
    keys = blocks_of(numbers)[0].view(30, 20)

    def load(pages: list[int], places: list[int], missing: list[bool]) -> None:
        numbers = (torch.tensor(x, dtype=torch.int64, device=device) for x in (pages, places))
        slots.load(*numbers, torch.tensor(missing, dtype=torch.bool, device=device))

    load([3, 29, 14], [5, 0, 2], [True, True, True])
    load([7, 11], [0, 2], [True, False])
    load([8], [5], [False])
    k, v = slots.read(torch.tensor([2, 5, 0, 2], device=device))
    assert k.device.type == device.type
    assert torch.equal(k.cpu(), keys[[14, 3, 7, 14]])
    assert torch.equal(v.cpu(), blocks_of(numbers)[1].view(30, 8)[[14, 3, 7, 14]])
    assert slots.nbytes == 6 * 4 * 7 * 4
