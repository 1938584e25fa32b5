"""Memories that are kept, so that what was read once is not read again.

A kept memory is a session that has read some tokens and nothing else. A prompt goes on from the one
that has read the longest beginning of it. A memory cannot be cut back to any length, so sessions
are forked while a prompt is read, at places where another prompt may part from it. Forks share the
sealed blocks; each has its own window. Where every token is kept anyway (full attention) one
session is kept for a whole text, and cut back.

Forks stand where an execution block ends. The state there does not depend on how the tokens were
cut on the way, so an answer is that of a fresh read.
"""

from __future__ import annotations

import copy
from array import array
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor
from typing_extensions import Self

from inf_llm.checks import count
from inf_llm.generation.kept import KeptSessions, marks, overlap
from inf_llm.generation.prefill import Progress, execution_block, whole_blocks
from inf_llm.generation.prefix_shelf import PrefixShelf
from inf_llm.generation.room import InUse, Room
from inf_llm.generation.rows import Company
from inf_llm.generation.session import Session
from inf_llm.saved.folder import remove
from inf_llm.saved.manifest import NAME

PLAIN_GRAIN = 256
"""Where nothing is retrieved any place would do."""

Tokens = Sequence[int]
Reading = Generator[int, None, tuple[Session, int]]
"""A prompt that is read in steps; see `PrefixCache.reading`."""


class PrefixCache:
    """Reads prompts, going on from memories it kept. For one thread.

    Args:
        model: a model, patched or not.
        tokenizer: the model's.
        chunk_size: tokens fed at a time.
        budget: bytes that kept memories and those in use may take together; None for no limit.
            Those used least recently leave first, and of one text those that are read again most
            quickly.
        points: most memories of the one conversation that is read; what is no beginning of the
            prompt that was read last is let go. None for any number of conversations.
        shelf: memories on a disk that prompts go on from too.
        needs: the bytes of a memory that has read so many tokens, so that there is room for a text
            before it is read; None where that is not known: then it is made afterwards.

    Attributes:
        chunk_size: tokens of the next feed, in whole execution blocks.
        evicted: how many were let go.

    Raises:
        SettingsError: `points` is less than 1.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        chunk_size: int = 8192,
        *,
        budget: int | None = None,
        points: int | None = None,
        shelf: PrefixShelf | None = None,
        needs: Callable[[int], int] | None = None,
    ) -> None:
        self._shelf = shelf
        points = None if points is None else count("points", points)
        self._model, self._fresh = model, Session(model, tokenizer, chunk_size)
        self.chunk_size = self._fresh.chunk_size
        self._kept = KeptSessions(self._fresh, points)
        self._block = execution_block(model)
        self.grain = self._block if self._block > 1 else PLAIN_GRAIN
        self._room = Room(budget, needs)
        self.evicted = 0

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def bytes(self) -> int:
        """On host and device of all that is kept and in use; what is shared counts once."""
        return self._room.bytes

    @property
    def budget(self) -> int | None:
        """Bytes that these may take together."""
        return self._room.budget

    @budget.setter
    def budget(self, count: int | None) -> None:
        self._room.budget = count

    @property
    def lengths(self) -> tuple[int, ...]:
        """Tokens that each kept memory has read."""
        return tuple(sorted(len(kept.key) for kept in self._kept))

    def read(
        self, ids: Tokens, boundaries: Tokens = (), on_progress: Progress | None = None
    ) -> tuple[Session, int]:
        """A session that has read a prompt, ready to answer.

        Args:
            ids: the prompt, one token at least.
            boundaries: lengths of its beginnings that other prompts may share.
            on_progress: as for `Session.read`; what it raises ends the reading, and what was read
                by then is kept.

        Returns:
            The session, and how many tokens of the prompt were in memory already.
        """
        steps = self.reading(ids, boundaries)
        with closing(steps):
            next(steps)  # nothing is fed yet
            while True:
                try:
                    done = next(steps)
                except StopIteration as end:
                    session, reused = end.value
                    break
                if on_progress is not None:
                    on_progress(done, len(ids))
        self.release(session)
        if on_progress is not None:
            on_progress(len(ids), len(ids))
        return session, reused

    def reading(
        self,
        ids: Tokens,
        boundaries: Tokens = (),
        hear: Callable[[Tensor], None] | None = None,
        company: Company | None = None,
    ) -> Reading:
        """The same in steps, with others between them; each that is taken feeds a chunk at most.

        For `hear` and `company` see `Session.reading`. With `hear` all is fed, whatever is in
        memory.

        Gives how many tokens were in memory already, then after each feed how many are, and
        returns what `read` does. The session is in use until it is released.
        """
        key = array("q", ids)
        self._kept.use(key)
        if hear is None:
            self._fetch(key)
        session = self._kept.start(key, self._room) if hear is None else self._fresh.fork()
        reused = session.fed
        self._room.enter(session, len(ids))
        self.trim()
        try:
            yield reused
            for mark in self._marks(key, reused, boundaries):
                yield from self._feeds(session, ids[len(session.ids) : mark + 1], hear, company)
                self._kept.keep(key[:mark], session)
            yield from self._feeds(session, ids[len(session.ids) :], hear, company)
        except BaseException:
            self._room.leave(session)
            raise
        finally:
            self._kept.keep(key[: session.fed], session)
            self.trim()
        return session, reused

    def _feeds(
        self,
        session: Session,
        ids: Tokens,
        hear: Callable[[Tensor], None] | None,
        company: Company | None,
    ) -> Iterator[int]:
        session.chunk_size = self.chunk_size
        for fed in session.reading(ids, hear, company):
            yield fed
            session.chunk_size = self.chunk_size

    def release(self, session: Session) -> None:
        """A session that `reading` gave is not used any more."""
        self._room.leave(session)
        self.trim()

    @contextmanager
    def in_use(self, session: Session) -> Iterator[InUse]:
        """A session that `reading` gave, used within the statement; so are forks of it."""
        used = InUse(session, self._room, self.trim)
        try:
            yield used
        finally:
            used.leave()

    def has_room(self, ids: Tokens, sessions: int = 1, fresh: bool = False) -> bool:
        """Whether a prompt can be read beside those in use; one alone always can.

        Args:
            ids: the prompt.
            sessions: memories that go on from it, each counted as one that has read it alone.
            fresh: all of it is read, whatever is in memory.
        """
        done = 0 if fresh else self._kept.reach(array("q", ids))
        return self._room.has_place(done, len(ids), sessions)

    def kept_of(self, ids: Tokens) -> int:
        """Tokens of the longest beginning of a prompt that is in memory."""
        key = array("q", ids)
        return max((len(kept.key) for kept in self._kept if kept.begins(key)), default=0)

    def keep(self, session: Session) -> None:
        """Keep a session that `read` gave with its answer, where that is as good as read."""
        if self._kept.cuts or self._block == 1:
            self._kept.keep_anew(session)
        self.trim()

    def trim(self) -> None:
        """Let memories go until the rest is few enough and, with sessions in use, small enough.

        Those in use count as what they will take once their prompts are read.
        """
        while True:
            large = not self._room.fits(kept.session for kept in self._kept)
            if not self._kept or not (self._kept.too_many or large):
                return
            self._kept.let_one_go()
            self.evicted += 1

    def save(self, folder: Path) -> int:
        """Write the longest memory to a folder, over what is there.

        Returns:
            Its tokens; 0 where nothing is kept: then the folder holds no memory any more.

        Raises:
            SavedMemoryError: it cannot be written.
        """
        longest = self._kept.longest()
        if longest is None:
            if (folder / NAME).exists():  # of a conversation that this one takes the place of
                remove(folder)
            return 0
        longest.session.save(folder, overwrite=True)
        return len(longest.key)

    def load(self, folder: Path) -> None:
        """Keep a memory that `save` wrote.

        Raises:
            SavedMemoryError: there is none, or it is damaged, or belongs to another model.
        """
        fresh = self._fresh
        session = Session.load(folder, self._model, fresh.tokenizer, fresh.chunk_size)
        self._kept.keep_anew(session)
        self.trim()

    def forget(self, text: Tokens, shared: Sequence[Tokens] = ()) -> bool:
        """Let go of what has read a text, wherever it stood.

        Args:
            text: at least its first tokens.
            shared: prompts whose memories stay, as far as they have read the text too.

        Returns:
            Whether nothing in use has the text; else memories of it may be kept again.
        """
        part = array("q", text)
        self._kept.forget(part, [array("q", prompt) for prompt in shared])
        self.trim()
        return not any(overlap(array("q", session.ids), part) for session in self._room)

    def clear(self) -> None:
        """Let all go."""
        self._kept.clear()
        self.trim()

    def fork(self) -> Self:
        """One that goes on by itself; what is kept is shared."""
        twin = copy.copy(self)
        twin._room, twin._kept = self._room.fork(), self._kept.fork()
        return twin

    def unshelved(self, ids: Tokens, least: int | None = None) -> Session | None:
        """A copy of the memory of a prompt's longest beginning, for the shelf.

        Args:
            ids: the prompt.
            least: tokens that it must have more than what the shelf has, else there is none; None
                for any number.
        """
        key = array("q", ids)
        best = self._kept.longest(key)
        if best is None or (least is not None and len(best.key) < self._shelved(key) + least):
            return None
        return best.session.fork()

    def _shelved(self, key: array[int]) -> int:
        """How many tokens of a prompt the shelf has."""
        found = None if self._shelf is None else self._shelf.best(key)
        return 0 if found is None else len(found.key)

    def _fetch(self, key: array[int]) -> None:
        """Keep what the shelf has of a prompt, where that is more than what is kept."""
        found = None if self._shelf is None else self._shelf.best(key)
        if found is None or self._shelf is None:
            return
        if len(found.key) >= self._kept.reach(key) + self.grain:
            session = self._shelf.load(found, self._fresh.chunk_size)
            if session is not None:
                self._kept.keep(found.key, session)

    def _marks(self, key: array[int], reused: int, boundaries: Tokens) -> list[int]:
        """Where to fork before the end, ascending, all more than `reused`."""
        if not self._kept.has_forks:
            return []
        places = {self._kept.shared(key), *boundaries}
        coming = range(reused, whole_blocks(self._model, len(key)))
        return marks(places, coming, self._block, self.grain)
