"""Sessions that are kept, each with the tokens that it has read, and what a prompt goes on from."""

from __future__ import annotations

import copy
from array import array
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from typing_extensions import Self

from inf_llm.errors import UnsupportedInputError
from inf_llm.generation.session import Session
from inf_llm.truncation import common_length

TAIL = (1, 4)
"""Forks are kept so many grains before the end of what was read: a question may begin there."""
LONG = 8
"""Grains to be read before more than the end is kept."""
LOSS = 8
"""A session is cut rather than copied where at least so many times what is cut off stays."""
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


class KeptSessions:
    """Those of one prefix cache.

    Args:
        fresh: a session that has read nothing.
        points: how many may be kept, all of one conversation: what is no beginning of the prompt
            that was started last is let go. None for any number of conversations.

    Attributes:
        cuts: whether one session is kept for a whole text and cut back, and no forks on the way.
    """

    def __init__(self, fresh: Session, points: int | None) -> None:
        self.cuts = fresh.can_cut
        self._fresh, self._points = fresh, points
        self._all: list[Kept] = []
        self._clock = 0

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[Kept]:
        return iter(self._all)

    @property
    def has_forks(self) -> bool:
        """Whether forks are kept where other prompts may part from the one that is read."""
        return not self.cuts and self._points is None

    @property
    def too_many(self) -> bool:
        """Whether there are more than `points`."""
        return self._points is not None and len(self) > self._points

    def use(self, key: array[int]) -> None:
        """Another prompt is read, and what begins it is used."""
        self._clock += 1
        for each in beginnings(self._all, key):
            each.used = self._clock

    def longest(self, key: array[int] | None = None) -> Kept | None:
        """The longest of all, or of those that a prompt begins with, one token less at most."""
        some = self._all if key is None else beginnings(self._all, key)
        return max(some, key=lambda each: len(each.key), default=None)

    def reach(self, key: array[int]) -> int:
        """First tokens of a prompt that need not be fed again."""
        if self.cuts:
            return self.shared(key)
        found = self.longest(key)
        return 0 if found is None else len(found.key)

    def shared(self, key: array[int]) -> int:
        """First tokens that a prompt has in common with one of them, at most."""
        return max((common_length(each.key, key) for each in self._all), default=0)

    def start(self, key: array[int], in_use: Container[Session]) -> Session:
        """A session that has read the longest beginning of a prompt, one token less at most.

        None of those `in_use` is given itself.
        """
        if self.cuts:
            return self._cut_back(key, in_use)
        best = self.longest(key)
        if self._points is not None:
            self._all = beginnings(self._all, key)
        return (best.session if best else self._fresh).fork()

    def _cut_back(self, key: array[int], in_use: Container[Session]) -> Session:
        """The same where a session is cut: itself where that loses little, or else a fork of it."""
        shares = [(common_length(each.key, key), each) for each in self._all]
        shared, best = max(shares, key=lambda pair: pair[0], default=(0, None))
        alone = self._points is not None
        if best is None or not shared:
            session = self._fresh.fork()
        else:
            taken = alone or (len(best.key) - shared) * LOSS <= shared
            taken = taken and best.session not in in_use
            session = best.session if taken else best.session.fork()
            self._all = [each for each in self._all if not (taken and each is best)]
            session.cut(min(shared, len(key) - 1, session.fed))
        self._all = [] if alone else self._all
        return session

    def keep(self, key: array[int], session: Session) -> None:
        """Keep what has read just these tokens; what begins them was used too."""
        for each in self._all:
            if each.begins(key):
                each.used = self._clock
        if not key or any(each.key == key for each in self._all):
            return
        if not self.cuts:
            try:
                session = session.fork()
            except UnsupportedInputError:  # a model with layers whose state cannot be copied
                return
            del session.ids[len(key) :]
        self._all.append(Kept(key, session, self._clock))

    def keep_anew(self, session: Session) -> None:
        """Keep a session with all that it has read by now."""
        self._all = [each for each in self._all if each.session is not session]
        self.keep(array("q", session.ids[: session.fed]), session)

    def let_one_go(self) -> None:
        """That which is worth least; of too many, the newest stays."""
        candidates = self._all[:-1] if self.too_many else self._all
        self._all.remove(least(candidates, self._all))

    def forget(self, text: array[int], shared: Sequence[array[int]]) -> None:
        """Let go of what has read a text; see `without`."""
        self._all = without(self._all, text, shared)

    def clear(self) -> None:
        """Let all go."""
        self._all = []

    def fork(self) -> Self:
        """The same, going on by themselves."""
        twin = copy.copy(self)
        twin._all = [
            replace(each, session=each.session.fork() if self.cuts else each.session)
            for each in self._all
        ]
        return twin
