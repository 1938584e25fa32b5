"""Numbers are held as often as said, and used again; none is given twice."""

from __future__ import annotations

import threading

import torch
from hypothesis import given
from hypothesis import strategies as st

from inf_llm.memory.allocator import BlockAllocator
from tests.attention.draws import examples


def test_held_until_the_last_lets_go() -> None:
    allocator = BlockAllocator()
    numbers = allocator.allocate(4)
    allocator.hold(torch.tensor([1, 1, 2]))
    assert allocator.release(numbers).tolist() == [0, 3]
    assert allocator.used == 2
    assert allocator.release(torch.tensor([1, 2])).tolist() == [2]
    assert allocator.release(torch.tensor([1])).tolist() == [1]
    assert allocator.used == 0


def test_repeated_numbers_are_let_go_at_once() -> None:
    allocator = BlockAllocator()
    allocator.allocate(2)
    allocator.hold(torch.tensor([0, 0]))
    assert allocator.release(torch.tensor([0, 1, 0, 0])).tolist() == [0, 1]


@examples(40)
@given(data=st.data())
def test_any_holding(data: st.DataObject) -> None:
    """Against a plain count per block: never given twice, never lost."""
    allocator = BlockAllocator()
    holders: dict[int, int] = {}
    for _ in range(data.draw(st.integers(10, 25))):
        held = sorted(holders)
        move = data.draw(st.sampled_from(["allocate", "hold", "release"]))
        if move == "allocate" or not held:
            numbers = allocator.allocate(data.draw(st.integers(1, 6))).tolist()
            assert numbers == sorted(set(numbers))
            assert not set(numbers) & set(held), "a block in use was given away"
            holders.update(dict.fromkeys(numbers, 1))
            continue
        chosen = data.draw(st.lists(st.sampled_from(held), min_size=1, max_size=8))
        if move == "hold":
            allocator.hold(torch.tensor(chosen))
            for number in chosen:
                holders[number] += 1
            continue
        chosen = [n for i, n in enumerate(chosen) if chosen[:i].count(n) < holders[n]]
        gone = allocator.release(torch.tensor(chosen)).tolist()
        for number in chosen:
            holders[number] -= 1
        assert gone == [number for number in held if not holders[number]]
        holders = {number: count for number, count in holders.items() if count}
        assert allocator.used == len(holders)
    assert allocator.used == len(holders)


def test_room_is_used_again() -> None:
    allocator = BlockAllocator()
    for _ in range(50):
        allocator.release(allocator.allocate(10))
    assert allocator.count == 10


def test_several_threads() -> None:
    """Rows of several threads may seal at once: no number is given twice."""
    allocator = BlockAllocator()
    got: list[int] = []

    def work() -> None:
        for _ in range(100):
            numbers = allocator.allocate(3)
            allocator.hold(numbers)
            allocator.release(numbers)
            got.extend(numbers.tolist())

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == list(range(1200))
    assert allocator.used == 1200
