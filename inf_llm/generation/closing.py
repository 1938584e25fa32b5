"""The end of a JSON text, found before the longest length of an answer cuts it.

A text that is cut is no JSON. So the last tokens are chosen here: a string ends, lists and objects
close, and what is still required is as short as its schema lets it be. Such an end is found by
trying: of the tokens that may follow, always the one that closes most.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

_ENDS = b'""', b'"', b"]", b"}", b":", b","
"""What is tried first: a quote, which ends a string, in which a bracket would be a letter."""
_SHORT = b"null", b"true", b"false", *(b"%d" % digit for digit in (*range(1, 10), 0))


class Closers:
    """The order in which tokens are tried.

    Args:
        spellings: the bytes of every token; none of those that are no text.
    """

    def __init__(self, spellings: Sequence[bytes]) -> None:
        ranked = sorted(range(len(spellings)), key=lambda token: _rank(spellings[token]))
        count = sum(_rank(spelling) < _rank(_SHORT[0]) for spelling in spellings)
        self._ends, self._others = ranked[:count], torch.tensor(ranked[count:])

    def path(self, matcher: Any, most: int) -> list[int] | None:
        """Tokens that complete what a matcher of llguidance has read.

        Returns:
            None where no end is found in `most` tokens.
        """
        matcher, found = matcher.deep_copy(), list[int]()
        while not (matcher.is_accepting() or matcher.is_stopped()):
            if len(found) == most or matcher.is_error():
                return None
            found.append(self._next(matcher.compute_bitmask(), found))
            matcher.consume_token(found[-1])
        return found

    def _next(self, mask: bytes, found: list[int]) -> int:
        """The token of a mask that is tried; of those that end nothing, one found most seldom."""
        for token in self._ends:
            if mask[token >> 3] >> (token & 7) & 1:
                return token
        allowed = unpacked(mask)[self._others]
        times = torch.bincount(torch.tensor(found, dtype=torch.int64), minlength=8 * len(mask))
        order = times[self._others] * len(allowed) + torch.arange(len(allowed))
        return int(self._others[order.masked_fill(~allowed, order.max() + 1).argmin()])


class Closing:
    """Says when one answer must come to its end, and how.

    Args:
        closers: for the tokenizer.
        matcher: llguidance's, at the start of the answer.
        longest: most tokens of the answer.
    """

    def __init__(self, closers: Closers, matcher: Any, longest: int) -> None:
        self._closers, self._longest = closers, longest
        shortest = closers.path(matcher, longest)
        self._margin = longest if shortest is None else len(shortest) + 1
        """By so many tokens the way to the end becomes longer with one token, at most: it may
        begin an object, which is likely no larger than the whole."""
        self._next_look = longest if shortest is None else 0
        self._end: list[int] | None = None

    @property
    def begun(self) -> bool:
        """Whether the answer is being brought to its end."""
        return self._end is not None

    def token(self, matcher: Any, used: int) -> int | None:
        """The token that must come after so many; None where the model may choose it."""
        if self._end is None and used >= self._next_look:
            self._look(matcher, used)
        return self._end.pop(0) if self._end else None

    def _look(self, matcher: Any, used: int) -> None:
        left = self._longest - used
        path = self._closers.path(matcher, left)
        spare = 0 if path is None else left - len(path) - self._margin
        if path and spare <= 0:
            self._end = path
        self._next_look = used + max(1, spare // self._margin)


def unpacked(mask: bytes) -> Tensor:
    """llguidance's mask of tokens as booleans."""
    bits = torch.frombuffer(bytearray(mask), dtype=torch.uint8)
    return ((bits[:, None] >> torch.arange(8, dtype=torch.uint8)) & 1).flatten().bool()


def _rank(spelling: bytes) -> tuple[int, int]:
    """The smaller, the sooner a token is tried."""
    if spelling in _ENDS:
        return 0, _ENDS.index(spelling)
    if spelling in _SHORT:
        return 1, _SHORT.index(spelling)
    if not spelling.strip():
        return 4, 0
    return 3 if spelling[:1] in (b"[", b"{") else 2, -len(spelling)
