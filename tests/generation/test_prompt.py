"""Prompts are encoded and cut as asked, or refused with the reason."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inf_llm.errors import TextError
from inf_llm.generation import encode, fit


def test_encode_does_not_mind_length(tokenizer: Any, caplog: pytest.LogCaptureFixture) -> None:
    tokenizer.model_max_length = 10
    assert len(encode(tokenizer, "abc" * 100)) == 300
    assert not caplog.records


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
