"""Kept sessions by the tokens that they have read, and the choice of one to continue from."""

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
"""Distances of forks from the end of a prompt, in grains: a question may begin near the end."""
LONG = 8
"""Fewest grains to read for which forks near the end are made."""
LOSS = 8
"""A session is cut, not forked, if the tokens that stay are at least `LOSS` times those cut off."""
_SURE = 64  # first tokens of a text that are searched for


@dataclass
class Kept:
    """A kept session: the tokens it has read, the session, and the number of its last use."""

    key: array[int]
    session: Session
    used: int

    def begins(self, key: array[int]) -> bool:
        """Return whether a prompt begins with the tokens that the session has read."""
        return key[: len(self.key)] == self.key


def beginnings(kept: Sequence[Kept], key: array[int]) -> list[Kept]:
    """Return the kept sessions that have read a prefix of a prompt, without its last token."""
    return [each for each in kept if len(each.key) < len(key) and each.begins(key)]


def overlap(key: array[int], text: array[int]) -> int:
    """Return the number of first tokens of a text that occur together in a key.

    They must reach the end of the text or of the key; otherwise the result is 0.
    """
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
    """Return the kept sessions that have not read a text, and those that the shared prompts need.

    The shared prompts need each session that has read a prefix of one of them, and each session
    that continues one of them that contains the whole text.
    """
    whole = [prompt for prompt in shared if overlap(prompt, text) == len(text)]

    def stays(each: Kept) -> bool:
        begins = any(each.begins(prompt) for prompt in shared)
        return begins or any(each.key[: len(prompt)] == prompt for prompt in whole)

    return [each for each in kept if not overlap(each.key, text) or stays(each)]


def least(candidates: Sequence[Kept], kept: Sequence[Kept]) -> Kept:
    """Return the session to evict: the least recently used one.

    Among sessions with the same last use, it is the one with the fewest tokens to read again after
    the longest kept prefix.
    """

    def worth(candidate: Kept) -> tuple[int, int]:
        before = (len(each.key) for each in beginnings(kept, candidate.key))
        return candidate.used, len(candidate.key) - max(before, default=0)

    return min(candidates, key=worth)


def marks(places: Iterable[int], coming: range, block: int, grain: int) -> list[int]:
    """Return the lengths of a prompt at which its session is forked, ascending.

    Args:
        places: lengths at which other prompts may diverge.
        coming: positions of the tokens to feed, up to the last whole execution block.
        block: tokens of an execution block; forks are made at block ends.
        grain: unit of `TAIL` and `LONG`, in tokens.
    """
    wanted = set(places)
    if len(coming) >= LONG * grain:
        wanted |= {coming.stop - back * grain for back in TAIL}
    whole = {place // block * block for place in wanted}
    return sorted(place for place in whole if coming.start < place < coming.stop)


class KeptSessions:
    """The kept sessions of one prefix cache.

    Args:
        fresh: a session that has read nothing.
        points: most kept sessions, all of one conversation; sessions that have read no prefix of
            the last started prompt are dropped. None for any number of conversations.

    Attributes:
        cuts: whether one session is kept for a whole text and cut to a prefix, without forks.
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
        """Whether forks are kept at lengths where other prompts may diverge."""
        return not self.cuts and self._points is None

    @property
    def too_many(self) -> bool:
        """Whether more than `points` sessions are kept."""
        return self._points is not None and len(self) > self._points

    def use(self, key: array[int]) -> None:
        """Count a prompt, and mark the sessions that have read a prefix of it as used."""
        self._clock += 1
        for each in beginnings(self._all, key):
            each.used = self._clock

    def longest(self, key: array[int] | None = None) -> Kept | None:
        """Return the session with the most tokens, of all or of the `beginnings` of a prompt."""
        some = self._all if key is None else beginnings(self._all, key)
        return max(some, key=lambda each: len(each.key), default=None)

    def reach(self, key: array[int]) -> int:
        """Return the number of first tokens of a prompt that need not be fed again."""
        if self.cuts:
            return self.shared(key)
        found = self.longest(key)
        return 0 if found is None else len(found.key)

    def shared(self, key: array[int]) -> int:
        """Return the length of the longest prefix that a prompt shares with a kept session."""
        return max((common_length(each.key, key) for each in self._all), default=0)

    def start(self, key: array[int], in_use: Container[Session]) -> Session:
        """Return a session that has read the longest kept prefix of a prompt.

        The prefix leaves at least one token of the prompt. A session in `in_use` is never returned
        itself, only forks of it.
        """
        if self.cuts:
            return self._cut_back(key, in_use)
        best = self.longest(key)
        if self._points is not None:
            self._all = beginnings(self._all, key)
        return (best.session if best else self._fresh).fork()

    def _cut_back(self, key: array[int], in_use: Container[Session]) -> Session:
        """Return a session for `start`: the kept one, cut, or a cut fork if much would be lost."""
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
        """Keep a session under the tokens it has read; mark sessions with a prefix as used."""
        for each in self._all:
            if each.begins(key):
                each.used = self._clock
        if not key or any(each.key == key for each in self._all):
            return
        if not self.cuts:
            try:
                session = session.fork()
            except UnsupportedInputError:  # the model has layers whose state cannot be copied
                return
            del session.ids[len(key) :]
        self._all.append(Kept(key, session, self._clock))

    def keep_anew(self, session: Session) -> None:
        """Keep a session with all tokens in its memory, in place of its earlier entry."""
        self._all = [each for each in self._all if each.session is not session]
        self.keep(array("q", session.ids[: session.fed]), session)

    def evict_one(self) -> None:
        """Evict the session that `least` returns; if there are too many, the newest one stays."""
        candidates = self._all[:-1] if self.too_many else self._all
        self._all.remove(least(candidates, self._all))

    def forget(self, text: array[int], shared: Sequence[array[int]]) -> None:
        """Drop the sessions that have read a text; see `without`."""
        self._all = without(self._all, text, shared)

    def clear(self) -> None:
        """Drop all kept sessions."""
        self._all = []

    def fork(self) -> Self:
        """Return an independent copy of the collection."""
        twin = copy.copy(self)
        twin._all = [
            replace(each, session=each.session.fork() if self.cuts else each.session)
            for each in self._all
        ]
        return twin
