"""Which blocks of a store are in files, and under which numbers."""

from __future__ import annotations

import torch

from inf_llm.memory.file_numbers import FileNumbers


def test_new_blocks_are_numbered_in_the_order_of_their_physical_numbers() -> None:
    filed, new = FileNumbers("0").with_more(torch.tensor([7, 3, 5, 3]))
    assert new.tolist() == [3, 5, 7]
    assert filed.of(torch.tensor([[7, 3], [5, 4]])).tolist() == [[2, 0], [1, -1]]
    more, new = filed.with_more(torch.tensor([3, 9]))
    assert new.tolist() == [9]
    assert more.of(torch.tensor([9])).tolist() == [3]
    assert more.count == 4


def test_what_is_not_committed_changes_nothing() -> None:
    filed, _ = FileNumbers("0").with_more(torch.tensor([0, 1]))
    filed.with_more(torch.tensor([2, 3]))
    assert filed.of(torch.tensor([2])).tolist() == [-1]
    assert filed.count == 2


def test_a_number_that_is_given_out_again_is_another_block() -> None:
    filed, _ = FileNumbers("0").with_more(torch.tensor([0, 1]))
    filed.forget(torch.tensor([1, 5]))
    again, new = filed.with_more(torch.tensor([0, 1]))
    assert new.tolist() == [1]
    assert again.of(torch.tensor([0, 1])).tolist() == [0, 2]


def test_numbers_that_do_not_exist() -> None:
    assert FileNumbers("0").of(torch.tensor([-1, 0, 99])).tolist() == [-1, -1, -1]
