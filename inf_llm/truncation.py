"""Where prompts are cut, and where two of them part; of token ids alone."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

from inf_llm.checks import require
from inf_llm.errors import TextError

TRUNCATIONS = ("suffix", "middle")
KEPT_HEAD = 128
"""First tokens that truncation "suffix" keeps, as in the published evaluation."""


def check_truncation(truncation: str | None) -> None:
    """Raise `SettingsError` unless there is such a way to cut a prompt."""
    message = f"truncation = {truncation!r} is not known; None, {' and '.join(TRUNCATIONS)} are"
    require(truncation is None or truncation in TRUNCATIONS, "truncation", message)


def kept(length: int, limit: int, truncation: str | None) -> tuple[int, int]:
    """How many tokens at the start and at the end of a prompt stay when it is cut.

    Args:
        length: of the prompt.
        limit: tokens allowed, at least 1.
        truncation: None refuses a longer prompt; "suffix" keeps its first `KEPT_HEAD` tokens and
            its end; "middle" keeps its first and its last half.

    Raises:
        TextError: the prompt is longer and may not be cut, or there is no room for any.
        SettingsError: there is no such truncation.
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
    """The prompt cut to at most `limit` tokens; see `kept`."""
    head, tail = kept(len(ids), limit, truncation)
    return ids if head == len(ids) else ids[:head] + ids[len(ids) - tail :]


def common_length(a: Sequence[int], b: Sequence[int]) -> int:
    """How many tokens two texts have in common at the start."""
    first, second = array("q", a), array("q", b)
    low, high = 0, min(len(first), len(second))
    while low < high:
        middle = (low + high + 1) // 2
        if first[low:middle] == second[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
