"""Sessions that are kept, each with the tokens that it has read."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from inf_llm.generation.session import Session
from inf_llm.truncation import common_length

TAIL = (1, 4)
"""Forks are kept so many grains before the end of what was read: a question may begin there."""
LONG = 8
"""Grains to be read before more than the end is kept."""
_SURE = 64  # tokens by which the place of a text is found


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


def overlap(key: array[int], text: array[int]) -> int:
    """How many first tokens of a text are somewhere in a key, up to where one of them ends; 0 where
    they part before that."""
    data, wanted = key.tobytes(), text[:_SURE].tobytes()
    at = data.find(wanted)
    while at >= 0 and wanted:
        first, rest = divmod(at, key.itemsize)
        count = common_length(key[first:], text)
        if not rest and (first + count == len(key) or count == len(text)):
            return count
        at = data.find(wanted, at + 1)
    return 0


def without(
    kept: Sequence[Kept], text: array[int], shared: Sequence[array[int]] = ()
) -> list[Kept]:
    """Those that have read nothing of a text, or only what prompts share that are to stay: all that
    begins such a prompt, and all that reads on from one with the whole text in it."""
    whole = [prompt for prompt in shared if overlap(prompt, text) == len(text)]

    def stays(each: Kept) -> bool:
        begins = any(each.begins(prompt) for prompt in shared)
        return begins or any(each.key[: len(prompt)] == prompt for prompt in whole)

    return [each for each in kept if not overlap(each.key, text) or stays(each)]


def least(candidates: Sequence[Kept], kept: Sequence[Kept]) -> Kept:
    """The one to let go: used least recently, and of these that which is read again most quickly
    from the others.
    """

    def worth(candidate: Kept) -> tuple[int, int]:
        before = (len(each.key) for each in beginnings(kept, candidate.key))
        return candidate.used, len(candidate.key) - max(before, default=0)

    return min(candidates, key=worth)


def marks(places: Iterable[int], coming: range, block: int, grain: int) -> list[int]:
    """Lengths of a prompt at which its reading is forked, ascending.

    Args:
        places: where other prompts may part from it.
        coming: tokens that are read now, up to the last whole execution block.
        block: tokens of an execution block, where forks stand.
        grain: the least tokens that a fork is worth.
    """
    wanted = set(places)
    if len(coming) >= LONG * grain:
        wanted |= {coming.stop - back * grain for back in TAIL}
    whole = {place // block * block for place in wanted}
    return sorted(place for place in whole if coming.start < place < coming.stop)
