"""Truncation of prompts, and the common start of two prompts, for lists of token ids."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

from inf_llm.checks import require
from inf_llm.errors import TextError

TRUNCATIONS = ("suffix", "middle")
KEPT_HEAD = 128
"""Number of first tokens that truncation "suffix" keeps, as in the published evaluation."""


def check_truncation(truncation: str | None) -> None:
    """Raise `SettingsError` unless `truncation` is None or a known truncation."""
    message = f"truncation = {truncation!r} is not known; None, {' and '.join(TRUNCATIONS)} are"
    require(truncation is None or truncation in TRUNCATIONS, "truncation", message)


def kept(length: int, limit: int, truncation: str | None) -> tuple[int, int]:
    """Return the numbers of tokens that a prompt keeps at its start and at its end.

    Args:
        length: tokens of the prompt.
        limit: largest number of tokens allowed, at least 1.
        truncation: None refuses a longer prompt; "suffix" keeps its first `KEPT_HEAD` tokens (at
            most half of `limit`) and its end; "middle" keeps half of `limit` at each end.

    Raises:
        TextError: the prompt is too long and `truncation` is None, or `limit` is less than 1.
        SettingsError: the truncation is unknown.
    """
    check_truncation(truncation)
    if limit < 1:
        raise TextError(
            "max_len leaves no room for a prompt beside the answer: raise max_len, or ask for "
            "fewer new tokens"
        )
    if length <= limit:
        return length, 0
    if truncation is None:
        raise TextError(
            f"the prompt has {length:,} tokens, but max_len leaves room for {limit:,}: raise "
            "max_len, or let it be cut with truncation=suffix or truncation=middle"
        )
    head = limit // 2 if truncation == "middle" else min(KEPT_HEAD, limit // 2)
    return head, limit - head


def fit(ids: list[int], limit: int, truncation: str | None) -> list[int]:
    """Cut a prompt to at most `limit` tokens; see `kept`."""
    head, tail = kept(len(ids), limit, truncation)
    return ids if head == len(ids) else ids[:head] + ids[len(ids) - tail :]


def common_length(a: Sequence[int], b: Sequence[int]) -> int:
    """Return the number of tokens at the start that two texts have in common."""
    first, second = array("q", a), array("q", b)
    low, high = 0, min(len(first), len(second))
    while low < high:
        middle = (low + high + 1) // 2
        if first[low:middle] == second[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
