"""Chunks against one tensor that holds everything."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from inf_llm.memory.chunks import Chunks

CPU = torch.device("cpu")
V, D = 3, 2


def values(count: int) -> Tensor:
    return torch.randn(V, count, D)


def whole(chunks: Chunks) -> Tensor:
    return torch.cat(chunks.parts(chunks.count), 1)


@given(
    st.integers(1, 9), st.lists(st.integers(1, 20), min_size=1, max_size=6), st.integers(0, 2**31)
)
def test_holds_what_was_put(length: int, counts: list[int], seed: int) -> None:
    torch.manual_seed(seed)
    chunks, total = Chunks(length), sum(counts)
    held = values(total)
    for numbers in torch.arange(total).split(counts):
        chunks.put(numbers, held[:, numbers])
    again = torch.randperm(total)[: total // 2 + 1]  # numbers are used anew, in any order
    held[:, again] = fresh = values(len(again))
    chunks.put(again, fresh)
    assert torch.equal(whole(chunks), held)
    assert torch.equal(chunks.of(again), held[:, again])
    assert torch.equal(chunks.first(total), held)
    heads, apart = torch.tensor([1, 0, 1]), torch.randint(total, (2, 3, 4))
    assert torch.equal(chunks.rows(heads, apart), held[heads[:, None], apart])
    assert torch.equal(chunks.rows(heads, apart[:, :1]), held[heads[:, None], apart[:, :1]])
    assert chunks.nbytes == held.nbytes


@given(st.integers(1, 9), st.lists(st.integers(1, 20), min_size=1, max_size=6), st.integers(0, 9))
def test_goes_on_from_what_was_restored(length: int, counts: list[int], more: int) -> None:
    chunks, total = Chunks(length), sum(counts)
    held = values(total + more)
    parts = held[:, :total].split(counts, 1)
    before = [part.clone() for part in parts]
    chunks.restore(parts, CPU)
    for number in range(total, total + more):
        chunks.put(torch.tensor([number]), held[:, number : number + 1])
    assert torch.equal(whole(chunks), held)
    numbers = torch.randperm(total + more)
    assert torch.equal(chunks.of(numbers), held[:, numbers])
    assert all(map(torch.equal, parts, before))


def test_chunks_begin_at_the_same_blocks_whether_sealed_here_or_restored() -> None:
    sealed, restored, held = Chunks(8), Chunks(8), values(29)
    sealed.put(torch.arange(29), held)
    restored.restore([held[:, :11], held[:, 11:]], CPU)
    for count in (7, 8, 29):
        sizes = [[part.shape[1] for part in each.parts(count)] for each in (sealed, restored)]
        assert sizes[0] == sizes[1]


def test_what_is_restored_is_not_copied() -> None:
    """But for a chunk that two parts share, and the last one once it grows."""
    chunks, first, second = Chunks(8), values(20), values(17)
    chunks.restore([first, second], CPU)

    def lies_in(part: Tensor) -> list[bool]:
        low, high = part.data_ptr(), part.data_ptr() + part.nbytes
        return [low <= chunk.data_ptr() < high for chunk in chunks.parts(chunks.count)]

    assert lies_in(first) == [True, True, False, False, False]
    assert lies_in(second) == [False, False, False, True, True]
    chunks.put(torch.arange(37, 38), values(1))
    assert lies_in(second) == [False, False, False, True, False]


@pytest.mark.parametrize(("count", "most"), [(63, 1), (64, 1), (65, 2), (500, 8), (5000, 28)])
def test_room_grows_in_steps_and_little_of_it_is_unused(count: int, most: int) -> None:
    chunks = Chunks(8192)
    moved, places = 0, None
    for number in range(count):
        chunks.put(torch.tensor([number]), values(1))
        (last,) = chunks.parts(number + 1)
        moved, places = moved + (last.data_ptr() != places), last.data_ptr()
        room = last.untyped_storage().nbytes() // last[:, :1].nbytes
        assert room <= number + 1 + max(64, number // 8)
    assert moved <= most


def test_a_chunk_does_not_move_once_the_next_one_has_begun() -> None:
    chunks = Chunks(256)
    chunks.put(torch.arange(256), values(256))
    first = chunks.parts(256)[0].data_ptr()
    chunks.put(torch.arange(256, 300), values(44))
    assert [part.shape[1] for part in chunks.parts(300)] == [256, 44]
    assert chunks.parts(300)[0].data_ptr() == first


def test_nothing_is_held_at_first() -> None:
    assert Chunks().nbytes == 0
    assert Chunks().parts(0) == []
