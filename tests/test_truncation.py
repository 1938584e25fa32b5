"""Prompts are cut as asked, or refused with the reason; where two part is found."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inf_llm.errors import TextError
from inf_llm.truncation import common_length, fit


@pytest.mark.parametrize(
    ("truncation", "limit", "kept"),
    [
        ("middle", 10, [*range(5), *range(995, 1000)]),
        ("middle", 11, [*range(5), *range(994, 1000)]),
        ("suffix", 300, [*range(128), *range(828, 1000)]),
        ("suffix", 10, [*range(5), *range(995, 1000)]),
        ("suffix", 1000, list(range(1000))),
        (None, 1000, list(range(1000))),
    ],
)
def test_fit(truncation: str | None, limit: int, kept: list[int]) -> None:
    assert fit(list(range(1000)), limit, truncation) == kept


@given(st.integers(0, 500), st.integers(1, 500), st.sampled_from(["suffix", "middle"]))
def test_fit_is_as_long_as_it_may_be(tokens: int, limit: int, truncation: str) -> None:
    kept = fit(list(range(tokens)), limit, truncation)
    assert len(kept) == min(tokens, limit)
    assert kept == sorted(set(kept))
    assert not tokens or kept[-1] == tokens - 1


def test_fit_refuses() -> None:
    with pytest.raises(TextError, match=r"1,000 tokens.*room for 999.*truncation=suffix"):
        fit(list(range(1000)), 999, None)
    with pytest.raises(TextError, match="no room"):
        fit([1], 0, "suffix")


@given(*3 * [st.lists(st.integers(0, 9))])
def test_common_length(common: list[int], a: list[int], b: list[int]) -> None:
    first, second = common + a, common + b
    length = common_length(first, second)
    assert first[:length] == second[:length]
    assert length == min(len(first), len(second)) or first[length] != second[length]
