"""The queue of the newest tokens, against a plain list."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from inf_llm.memory.recent import Recent
from tests.attention.draws import examples

moves = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(1, 30)),
        st.tuples(st.just("drop"), st.integers(0, 30)),
        st.tuples(st.just("add"), st.integers(1, 30)),
        st.tuples(st.just("rows"), st.lists(st.integers(0, 5), min_size=1, max_size=3)),
    ),
    min_size=10,
    max_size=30,
)


@examples(60)
@given(moves, st.integers(0, 60))
def test_as_a_list(moves: list[tuple[str, object]], capacity: int) -> None:
    recent = Recent(capacity, sums=("mass",))
    rows, number = 2, 0
    k, mass = torch.zeros(rows, 3, 0, 4), torch.zeros(rows, 5, 0)
    for move, value in moves:
        if move == "append":
            assert isinstance(value, int)
            new = torch.arange(number, number + rows * 3 * value * 4).float()
            number += len(new)
            new = new.view(rows, 3, value, 4)
            recent.append(k=new, mass=torch.zeros(rows, 5, value))
            k = torch.cat((k, new), 2)
            mass = torch.cat((mass, torch.zeros(rows, 5, value)), 2)
        elif move == "drop":
            assert isinstance(value, int)
            count = min(value, len(recent))
            recent.drop(count)
            k, mass = k[:, :, count:], mass[:, :, count:]
        elif len(recent) and move == "add":
            assert isinstance(value, int)
            count = min(value, len(recent))
            recent["mass"][:, :, len(recent) - count :] += value
            mass[:, :, mass.shape[2] - count :] += value
        elif len(recent) and isinstance(value, list):
            index = torch.tensor(value) % rows
            rows = len(index)
            recent.select_rows(index)
            k, mass = k[index], mass[index]
        assert len(recent) == k.shape[2]
        if len(recent):
            assert torch.equal(recent["k"], k)
            assert torch.equal(recent["mass"], mass)


def tokens(first: int, count: int) -> dict[str, torch.Tensor]:
    k = torch.arange(first, first + count).float().view(1, 1, count, 1)
    return {"k": k, "mass": torch.zeros(1, 1, count)}


def held(recent: Recent) -> list[int]:
    return recent["k"].flatten().int().tolist()


def test_reading_copies_nothing() -> None:
    recent = Recent(100)
    recent.append(**tokens(0, 5))
    assert recent["k"].data_ptr() == recent["k"].data_ptr()
    recent["k"][:, :, 0] = 7
    assert held(recent) == [7, 1, 2, 3, 4]


@pytest.mark.parametrize("step", [1, 7, 20])
def test_bytes_settle(step: int) -> None:
    """At most `keep` tokens stay after each step, and the buffers stop growing."""
    keep = 300
    recent = Recent((keep + 20) * 5 // 4)
    sizes = []
    for first in range(0, 4000, step):
        recent.append(**tokens(first, step))
        recent.drop(max(0, len(recent) - keep))
        sizes.append(recent.nbytes)
    warm = [size for first, size in zip(range(0, 4000, step), sizes, strict=True) if first > 1000]
    assert len(set(warm)) == 1
    assert warm[0] <= 2 * (keep + 20) * 8


def test_forks_part() -> None:
    one = Recent(50, sums=("mass",))
    one.append(**tokens(0, 5))
    two = one.fork()
    one.append(**tokens(10, 2))
    two.append(**tokens(20, 3))
    two["mass"][:] += 1
    one.drop(1)
    assert held(one) == [1, 2, 3, 4, 10, 11]
    assert held(two) == [0, 1, 2, 3, 4, 20, 21, 22]
    assert one["mass"].sum() == 0


@pytest.mark.parametrize("count", [3, 60], ids=["in the room left", "beyond the room left"])
def test_checkpoints_stay_as_they_were(count: int) -> None:
    recent = Recent(50, sums=("mass",))
    recent.append(**tokens(0, 5))
    recent["mass"][:] += 1
    state = recent.checkpoint()
    recent["mass"][:] += 1
    recent.append(**tokens(10, count))
    recent.drop(4)
    recent.rollback(state)
    assert held(recent) == [0, 1, 2, 3, 4]
    assert recent["mass"].flatten().tolist() == [1] * 5
    recent.append(**tokens(30, 2))
    recent["mass"][:] += 1
    assert held(recent) == [0, 1, 2, 3, 4, 30, 31]
    assert recent["mass"].flatten().tolist() == [2] * 5 + [1] * 2


def test_rows_of_nothing() -> None:
    recent = Recent(50)
    recent.select_rows(torch.tensor([0, 0]))
    recent.append(k=torch.zeros(2, 1, 3, 1))
    assert len(recent) == 3
