"""Lengths, sizes and speeds: what is written is read, and what is shown means something."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inf_llm.errors import SettingsError
from inf_llm.units import (
    MAX_TOKENS,
    pace,
    parse_bytes,
    parse_length,
    parse_lengths,
    short,
    size,
)


@pytest.mark.parametrize(
    ("text", "length"), [("8192", 8192), ("8k", 8192), (" 1M ", 1 << 20), ("1024m", MAX_TOKENS)]
)
def test_lengths_are_read(text: str, length: int) -> None:
    assert parse_length("--length", text) == length
    assert parse_lengths("--lengths", f"{text},1,{text}") == (1, length)


@pytest.mark.parametrize("text", ["", "k", "8kb", "-1", "0", "0k", "4x", "1.5k", "9" * 30, "2048m"])
def test_what_is_no_length_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match=f"--length '{text}' is not a number of tokens"):
        parse_length("--length", text)


@given(st.integers(1, 1 << 20), st.sampled_from([1, 1 << 10, 1 << 20]))
def test_a_whole_length_is_read_as_it_was_shown(count: int, unit: int) -> None:
    length = min(count * unit, MAX_TOKENS)
    shown = short(length)
    assert "." in shown or parse_length("--length", shown) == length


@pytest.mark.parametrize(
    ("length", "text"),
    [(0, "0"), (500, "500"), (1000, "1000"), (1536, "1.5k"), (32 << 10, "32k"), (1 << 20, "1M")],
)
def test_lengths_are_shown(length: int, text: str) -> None:
    assert short(length) == text


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("1000000", 10**6),
        ("500MB", 5 * 10**8),
        ("8GiB", 8 << 30),
        ("1.5k", 1500),
        ("16mi", 16 << 20),
    ],
)
def test_sizes_are_read(text: str, count: int) -> None:
    assert parse_bytes("--memory", text) == count


@pytest.mark.parametrize("text", ["", "0", "0.5", "8 XB", "GiB", "-1"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match=r"--memory = .* is not a size"):
        parse_bytes("--memory", text)


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 KB"), (18_040_000, "18.0 MB"), (10**16, "10000.0 TB")],
)
def test_sizes_are_shown(count: int, text: str) -> None:
    assert size(count) == text


@pytest.mark.parametrize(
    ("tokens", "seconds", "text"),
    [
        (57688, 0.0001, "0.0 s"),  # nothing was computed
        (15, 2.0, "2.0 s"),
        (128, 4.0, "4.0 s (32.0 tokens/s)"),
        (90000, 10.0, "10.0 s (9,000 tokens/s)"),
    ],
)
def test_a_speed_is_shown_where_there_is_one(tokens: int, seconds: float, text: str) -> None:
    assert pace(tokens, seconds) == text
