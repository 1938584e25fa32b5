"""Sessions that are kept, each with the tokens that it has read."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass

from inf_llm.generation.session import Session


@dataclass
class Kept:
    """A session, the tokens that it has read, and the number of the last read that used it."""

    key: array[int]
    session: Session
    used: int

    def begins(self, key: array[int]) -> bool:
        """Whether a prompt begins with what was read."""
        return key[: len(self.key)] == self.key


def beginnings(kept: Sequence[Kept], key: array[int]) -> list[Kept]:
    """Those that a prompt begins with, one token less at most."""
    return [each for each in kept if len(each.key) < len(key) and each.begins(key)]


def least(candidates: Sequence[Kept], kept: Sequence[Kept]) -> Kept:
    """The one to let go: used least recently, and of these that which is read again most quickly
    from the others.
    """

    def worth(candidate: Kept) -> tuple[int, int]:
        before = (len(each.key) for each in beginnings(kept, candidate.key))
        return candidate.used, len(candidate.key) - max(before, default=0)

    return min(candidates, key=worth)
