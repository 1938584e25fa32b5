"""Which blocks a row has: numbers, holders, and the way back."""

from __future__ import annotations

import gc
from typing import cast

import torch

from inf_llm.memory.block_store import BlockStore
from inf_llm.memory.block_table import BlockTable


class Holders:
    """Counts the holders of each block, as a store does."""

    def __init__(self) -> None:
        self.count: dict[int, int] = {}

    def hold(self, numbers: torch.Tensor, by: int = 1) -> None:
        for number in numbers.flatten().tolist():
            self.count[number] = self.count.get(number, 0) + by

    def release(self, numbers: torch.Tensor) -> None:
        self.hold(numbers, -1)

    release_later = release


def table(numbers: list[list[int]]) -> tuple[BlockTable, Holders]:
    """A table that was given these blocks, each held once."""
    made, holders = BlockTable(), Holders()
    made.store = cast(BlockStore, holders)
    holders.hold(torch.tensor(numbers))
    made.add(torch.tensor(numbers))
    return made, holders


def test_plain_numbers_need_no_table() -> None:
    plain, _ = table([[0, 1, 2]])
    assert plain.physical is None
    plain.add(torch.tensor([[4]]))
    assert plain.physical is not None
    assert plain.physical.tolist() == [[0, 1, 2, 4]]
    assert table([[0, 2], [1, 3]])[0].physical is not None


def test_going_back_lets_go_of_what_came_since() -> None:
    some, holders = table([[0, 1], [2, 3]])
    before = some.checkpoint()
    holders.hold(torch.tensor([[4], [5]]))
    some.add(torch.tensor([[4], [5]]))
    some.rollback(before)
    assert len(some) == 2
    assert holders.count == {0: 1, 1: 1, 2: 1, 3: 1, 4: 0, 5: 0}


def test_a_fork_holds_for_itself() -> None:
    some, holders = table([[0, 3]])
    twin = some.fork()
    assert holders.count == {0: 2, 3: 2}
    some.cut(1)
    assert holders.count == {0: 2, 3: 1}
    assert twin.physical is not None
    assert twin.physical.tolist() == [[0, 3]]
    del some, twin
    gc.collect()
    assert holders.count == {0: 0, 3: 0}


def test_rows_that_repeat_or_vanish() -> None:
    some, holders = table([[0, 1], [2, 3]])
    some.select_rows(torch.tensor([1, 1]))
    assert some.physical is not None
    assert some.physical.tolist() == [[2, 3], [2, 3]]
    assert holders.count == {0: 0, 1: 0, 2: 2, 3: 2}
