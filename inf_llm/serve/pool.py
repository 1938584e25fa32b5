"""Memories kept between requests, so that what was read once is not read again.

A kept memory is a session that has read some tokens and nothing else. A request continues the one
that has read the longest beginning of its prompt. A memory cannot be cut back to any length, so
sessions are forked, while a prompt is read, at places where another prompt may part from it. Forks
share the sealed blocks; each has its own window.

All places are multiples of the execution block. The state there does not depend on how the tokens
were cut on the way, so an answer is the same as after a fresh read.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any

from inf_llm.generation import Session
from inf_llm.generation.footprint import footprint
from inf_llm.generation.prefill import Progress, execution_block

TAIL = (0, 1, 4)
"""Forks are kept so many grains before the end of what was read: a question may begin there."""
LONG = 8
"""Grains to be read before more than the end is kept."""
PLAIN_GRAIN = 256
"""Where nothing is retrieved any place would do."""
FEED = 2048
"""Most tokens fed at a time, so that progress is seen and a cancelled reading ends soon."""


class _Kept:
    """One memory, and the tokens it has read."""

    def __init__(self, key: bytes, session: Session) -> None:
        self.key = key
        self.session = session
        self.used = 0

    @property
    def tokens(self) -> int:
        return len(self.session.ids)


class MemoryPool:
    """Reads prompts, continuing from memories it kept. For one thread.

    Args:
        model: a model, patched or not.
        tokenizer: the model's.
        budget: bytes that kept memories and the one in use may take together; those used least
            recently leave first.
        chunk_size: tokens fed at a time, at most.
    """

    def __init__(self, model: Any, tokenizer: Any, budget: int, chunk_size: int = 8192) -> None:
        block = execution_block(model)
        self.grain = block if block > 1 else PLAIN_GRAIN
        self.budget = budget
        self.bytes = 0
        self.evicted = 0
        self._model, self._tokenizer = model, tokenizer
        self._chunk = min(chunk_size, max(FEED, block))
        self._kept: list[_Kept] = []
        self._clock = 0

    def __len__(self) -> int:
        return len(self._kept)

    def read(
        self,
        ids: Sequence[int],
        boundaries: Sequence[int] = (),
        on_progress: Progress | None = None,
    ) -> tuple[Session, int]:
        """A session that has read a prompt, ready to answer.

        Args:
            ids: the prompt.
            boundaries: lengths of its beginnings that other prompts may share.
            on_progress: as for `Session.read`; what it raises ends the reading, and what was read
                by then is kept.

        Returns:
            The session, which is the caller's own, and how many tokens of the prompt were in
            memory already.
        """
        key = _key(ids)
        base = self._longest(key, len(ids))
        reused = base.tokens if base else 0
        session = base.session.fork() if base else self._fresh()
        if base is not None:
            self._touch(base.key)
        try:
            for mark in self._marks(key, len(ids), reused, boundaries):
                session.read(ids[len(session.ids) : mark + 1], _scaled(on_progress, len(ids)))
                self._keep(key, mark, session)
            session.read(ids[len(session.ids) :], _scaled(on_progress, len(ids)))
        except BaseException:
            self._keep(key, session.fed, session)
            raise
        finally:
            self.trim(session)
        return session, reused

    def trim(self, *busy: Session) -> None:
        """Let memories go until the rest, with sessions in use, fits the budget."""
        order = sorted(self._kept, key=lambda kept: kept.used)
        while True:
            sessions = [kept.session for kept in self._kept]
            self.bytes = footprint([*sessions, *busy])
            if self.bytes <= self.budget or not order:
                return
            self._kept.remove(order.pop(0))
            self.evicted += 1

    def clear(self) -> None:
        """Let all go."""
        self._kept.clear()
        self.bytes = 0

    def _fresh(self) -> Session:
        return Session(self._model, self._tokenizer, self._chunk)

    def _longest(self, key: bytes, tokens: int) -> _Kept | None:
        """The kept memory with the longest beginning of a prompt, one token less at most."""
        fits = [kept for kept in self._kept if kept.tokens < tokens and key.startswith(kept.key)]
        return max(fits, key=lambda kept: kept.tokens, default=None)

    def _marks(self, key: bytes, tokens: int, reused: int, boundaries: Sequence[int]) -> list[int]:
        """Where to fork, ascending: all more than `reused`, and all leave a token to feed."""
        end = (tokens - 1) // self.grain * self.grain
        places = {end}
        if end - reused >= LONG * self.grain:
            places |= {end - back * self.grain for back in TAIL}
            places |= {length // self.grain * self.grain for length in boundaries}
        shared = max((_common(key, kept.key) for kept in self._kept), default=0)
        places.add(shared // self.grain * self.grain)
        return sorted(place for place in places if reused < place <= end)

    def _keep(self, key: bytes, tokens: int, session: Session) -> None:
        """Keep a fork of what has read just the first `tokens` of a prompt."""
        own = key[: tokens * _ITEM]
        if tokens and not any(kept.key == own for kept in self._kept):
            fork = session.fork()
            del fork.ids[tokens:]
            self._kept.append(_Kept(own, fork))
        self._touch(own)

    def _touch(self, key: bytes) -> None:
        """This one was used, and before it all that it grew from; so ends leave before roots."""
        path = [kept for kept in self._kept if key.startswith(kept.key)]
        for kept in sorted(path, key=lambda kept: -kept.tokens):
            self._clock += 1
            kept.used = self._clock


_ITEM = array("i").itemsize


def _key(ids: Sequence[int]) -> bytes:
    return array("i", ids).tobytes()


def _common(a: bytes, b: bytes) -> int:
    """How many tokens two keys have in common at the start."""
    low, high = 0, min(len(a), len(b)) // _ITEM
    while low < high:
        middle = (low + high + 1) // 2
        part = slice(low * _ITEM, middle * _ITEM)
        if a[part] == b[part]:
            low = middle
        else:
            high = middle - 1
    return low


def _scaled(on_progress: Progress | None, total: int) -> Progress | None:
    """Progress over the whole prompt, of which a part is being read."""
    if on_progress is None:
        return None
    return lambda done, _: on_progress(min(done, total), total)
