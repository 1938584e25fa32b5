"""Completion of a JSON text before the longest length of an answer cuts the text.

A cut text is not valid JSON. The last tokens are therefore chosen here: they end a string, close
lists and objects, and give required values in a short form. The search is greedy: of the tokens
that the grammar allows, it takes the first in a fixed order that prefers closing tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

_ENDS = b'""', b'"', b"]", b"}", b":", b","
"""Tokens tried first. Quotes come before brackets: a bracket in a string closes nothing."""
_SHORT = b"null", b"true", b"false", *(b"%d" % digit for digit in (*range(1, 10), 0))


class Closers:
    """The order in which tokens are tried to complete a text.

    Args:
        spellings: the bytes of every token by its id; empty for a token that is not text.
    """

    def __init__(self, spellings: Sequence[bytes]) -> None:
        ranked = sorted(range(len(spellings)), key=lambda token: _rank(spellings[token]))
        count = sum(_rank(spelling) < _rank(_SHORT[0]) for spelling in spellings)
        self._ends, self._others = ranked[:count], torch.tensor(ranked[count:])

    def path(self, matcher: Any, most: int) -> list[int] | None:
        """Find tokens that complete the text that a matcher of llguidance has read.

        Returns:
            The token ids; None if no end is found within `most` tokens.
        """
        tokens = list[int]()
        matcher = self._followed(matcher, most, tokens)
        return tokens if matcher.is_accepting() or matcher.is_stopped() else None

    def problem(self, matcher: Any, most: int) -> str | None:
        """Return llguidance's error on the way to a completion of `most` tokens; None without one.

        llguidance builds a grammar's states when they are reached, and its limits apply then.
        """
        matcher = self._followed(matcher, most, [])
        return str(matcher.get_error()) if matcher.is_error() else None

    def _followed(self, matcher: Any, most: int, tokens: list[int]) -> Any:
        """Return a copy of a matcher behind the tokens of a completion, which `tokens` collects."""
        matcher = matcher.deep_copy()
        while len(tokens) < most and not (matcher.is_accepting() or matcher.is_stopped()):
            tokens.append(self._next(matcher.compute_bitmask(), tokens))
            matcher.consume_token(tokens[-1])
        return matcher

    def _next(self, mask: bytes, tokens: list[int]) -> int:
        """Return the token of a mask to try next.

        Among tokens that are not in `_ENDS`, those that are rarest in `tokens` come first.
        """
        for token in self._ends:
            if mask[token >> 3] >> (token & 7) & 1:
                return token
        allowed = unpacked(mask)[self._others]
        times = torch.bincount(torch.tensor(tokens, dtype=torch.int64), minlength=8 * len(mask))
        order = times[self._others] * len(allowed) + torch.arange(len(allowed))
        return int(self._others[order.masked_fill(~allowed, order.max() + 1).argmin()])


class Closing:
    """The completion of one answer: decides when it must begin, and gives its tokens.

    Args:
        closers: closers of the tokenizer.
        matcher: matcher of llguidance at the start of the answer.
        longest: most tokens of the answer.
    """

    def __init__(self, closers: Closers, matcher: Any, longest: int) -> None:
        self._closers, self._longest = closers, longest
        shortest = closers.path(matcher, longest)
        self._margin = longest if shortest is None else len(shortest) + 1
        """Most tokens by which one more token of the answer lengthens the completion: the token may
        begin an object, which is likely no larger than the shortest whole answer."""
        self._next_look = longest if shortest is None else 0
        self._end: list[int] | None = None

    @property
    def begun(self) -> bool:
        """Whether the completion of the answer has begun."""
        return self._end is not None

    def token(self, matcher: Any, used: int) -> int | None:
        """Return the token that must follow the first `used` ones; None if the model chooses it."""
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
    """Return a token mask of llguidance as a tensor of booleans."""
    bits = torch.frombuffer(bytearray(mask), dtype=torch.uint8)
    return ((bits[:, None] >> torch.arange(8, dtype=torch.uint8)) & 1).flatten().bool()


def _rank(spelling: bytes) -> tuple[int, int]:
    """Return the sort key of a token by its bytes; tokens with smaller keys are tried first."""
    if spelling in _ENDS:
        return 0, _ENDS.index(spelling)
    if spelling in _SHORT:
        return 1, _SHORT.index(spelling)
    if not spelling.strip():
        return 4, 0
    return 3 if spelling[:1] in (b"[", b"{") else 2, -len(spelling)
