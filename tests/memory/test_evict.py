"""The order in which each policy lets pages go, against a plain statement of it."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from inf_llm.variants import EVICTION
from tests.attention.draws import examples
from tests.memory.shelf import residency

every_policy = pytest.mark.parametrize("name", list(EVICTION))


def misses(name: str, traffic: Iterable[int], slots: int, decay: float = 0.5) -> list[bool]:
    """One page a step: which of them had to be loaded."""
    shelf = residency(name, slots, decay)
    return [bool(shelf.admit(torch.tensor([page]), 50)[1]) for page in traffic]


@examples(60)
@given(st.lists(st.integers(0, 5), min_size=30, max_size=50), st.integers(1, 5))
def test_least_recently_used_leaves(traffic: list[int], slots: int) -> None:
    here: list[int] = []
    want = []
    for page in traffic:
        want.append(page not in here)
        here = [other for other in here if other != page][-slots + 1 :] if slots > 1 else []
        here.append(page)
    assert misses("lru", traffic, slots) == want


@examples(60)
@given(st.lists(st.integers(0, 5), min_size=30, max_size=50), st.integers(1, 5))
def test_first_in_leaves_first(traffic: list[int], slots: int) -> None:
    here: list[int] = []
    want = []
    for page in traffic:
        want.append(page not in here)
        if page not in here:
            here = [*here, page][-slots:]
    assert misses("fifo", traffic, slots) == want


@examples(60)
@given(
    st.lists(st.tuples(st.integers(0, 5), st.floats(0.01, 1.0)), min_size=30, max_size=50),
    st.integers(1, 5),
    st.sampled_from([0.1, 0.5, 1.0]),
)
def test_least_scored_leaves(traffic: list[tuple[int, float]], slots: int, decay: float) -> None:
    shelf = residency("lru-s", slots, decay)
    scores: dict[int, float] = {}
    for page, mass in traffic:
        scores = {other: score * decay for other, score in scores.items()}
        place, missing = shelf.admit(torch.tensor([page]), 50)
        ordered = sorted(scores.values())
        assert bool(missing) == (page not in scores)
        if page not in scores:
            if len(scores) == slots:
                if slots > 1 and ordered[1] - ordered[0] < 1e-9:
                    return  # a tie: either may leave
                del scores[min(scores, key=scores.__getitem__)]
            scores[page] = 0.0
        scores[page] += mass
        shelf.observed(place, torch.tensor([mass], dtype=torch.float64))
