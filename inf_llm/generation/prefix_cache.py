"""A cache of sessions, so that prompts with a common prefix are not read again.

A kept memory is a session that has read exactly the tokens of its key. A prompt continues from the
kept memory with the longest prefix of the prompt. A memory cannot be rolled back to every length.
Sessions are therefore forked during prefill, at lengths where another prompt may diverge. Forks
share the sealed blocks; each fork has its own local window. With full attention every token stays
in the cache, so one session is kept for a whole text and cut to the common prefix.

Forks are made at the ends of execution blocks. The state there does not depend on the chunk
boundaries before it, so an answer equals the answer after a full read of the prompt.
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
from inf_llm.generation.disk_prefix_cache import DiskPrefixCache
from inf_llm.generation.kept import KeptSessions, marks, overlap
from inf_llm.generation.prefill import Progress, execution_block, whole_blocks
from inf_llm.generation.room import InUse, Room
from inf_llm.generation.rows import Piggyback
from inf_llm.generation.session import Session
from inf_llm.saved.folder import remove
from inf_llm.saved.manifest import NAME

PLAIN_GRAIN = 256
"""`PrefixCache.grain` of a model without retrieval, whose sessions can be forked at any token."""

Tokens = Sequence[int]
Reading = Generator[int, None, tuple[Session, int]]
"""The steps of reading a prompt; see `PrefixCache.reading`."""


class PrefixCache:
    """Reads prompts and continues from kept memories. Not thread-safe.

    Args:
        model: a model, patched or not.
        tokenizer: the tokenizer of the model.
        chunk_size: tokens of one feed.
        budget: bytes that kept memories and sessions in use may take together; None for no limit.
            The least recently used memory is evicted first; among memories last used by the same
            prompt, the one that needs the fewest tokens to be read again.
        points: most kept memories of one conversation; memories that are no prefix of the last
            prompt are dropped. None for any number of conversations.
        disk_cache: memories on a disk, which prompts can continue from too.
        needs: function from a number of tokens to the bytes of a memory that has read them, used
            to make room before a text is read. None if unknown: room is then made afterwards.

    Attributes:
        chunk_size: tokens of the next feed, in whole execution blocks.
        grain: unit of fork distances, in tokens: an execution block, or `PLAIN_GRAIN` without
            retrieval.
        evicted: number of evicted memories.

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
        disk_cache: DiskPrefixCache | None = None,
        needs: Callable[[int], int] | None = None,
    ) -> None:
        self._disk_cache = disk_cache
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
        """Bytes on host and device, as of the last `trim`; blocks that sessions share count once.

        All kept memories and all sessions in use count.
        """
        return self._room.bytes

    @property
    def budget(self) -> int | None:
        """Bytes that kept memories and sessions in use may take together; None for no limit."""
        return self._room.budget

    @budget.setter
    def budget(self, count: int | None) -> None:
        self._room.budget = count

    @property
    def lengths(self) -> tuple[int, ...]:
        """Numbers of tokens that the kept memories have read, ascending."""
        return tuple(sorted(len(kept.key) for kept in self._kept))

    def read(
        self, ids: Tokens, boundaries: Tokens = (), on_progress: Progress | None = None
    ) -> tuple[Session, int]:
        """Read a prompt and return a session that is ready to answer.

        Args:
            ids: the token ids of the prompt, at least one.
            boundaries: lengths of prefixes that other prompts may share.
            on_progress: called as in `Session.read`. If it raises, reading ends, and the tokens
                read until then are kept.

        Returns:
            The session, and the number of tokens of the prompt that were in memory already.
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
        on_logits: Callable[[Tensor], None] | None = None,
        piggyback: Piggyback | None = None,
    ) -> Reading:
        """Read a prompt as `read` does, in steps that feed at most one chunk each.

        The caller may run other work between two steps. The session is in use until `release`.

        Args:
            ids: the token ids of the prompt, at least one.
            boundaries: lengths of prefixes that other prompts may share.
            on_logits: see `Session.reading`. With it the whole prompt is fed, and no kept memory is
                used.
            piggyback: see `Session.reading`.

        Yields:
            First the number of tokens that were in memory already, then, after each feed, the
            number of tokens in memory.

        Returns:
            The values that `read` returns.
        """
        key = array("q", ids)
        self._kept.use(key)
        if on_logits is None:
            self._fetch(key)
        session = self._kept.start(key, self._room) if on_logits is None else self._fresh.fork()
        reused = session.fed
        self._room.enter(session, len(ids))
        self.trim()
        try:
            yield reused
            for mark in self._marks(key, reused, boundaries):
                yield from self._feeds(
                    session, ids[len(session.ids) : mark + 1], on_logits, piggyback
                )
                self._kept.keep(key[:mark], session)
            yield from self._feeds(session, ids[len(session.ids) :], on_logits, piggyback)
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
        on_logits: Callable[[Tensor], None] | None,
        piggyback: Piggyback | None,
    ) -> Iterator[int]:
        session.chunk_size = self.chunk_size
        for fed in session.reading(ids, on_logits, piggyback):
            yield fed
            session.chunk_size = self.chunk_size

    def release(self, session: Session) -> None:
        """Mark a session of `reading` as no longer in use."""
        self._room.leave(session)
        self.trim()

    @contextmanager
    def in_use(self, session: Session) -> Iterator[InUse]:
        """Use a session of `reading` and forks of it in a `with` statement; release them after it.

        Yields:
            An object that makes the forks.
        """
        used = InUse(session, self._room, self.trim)
        try:
            yield used
        finally:
            used.leave()

    def has_room(self, ids: Tokens, sessions: int = 1, fresh: bool = False) -> bool:
        """Whether the budget allows a prompt beside the sessions in use; True if there are none.

        Args:
            ids: the token ids of the prompt.
            sessions: number of memories that continue from the prompt; each one after the first
                counts with all bytes of the prompt.
            fresh: whether the whole prompt is fed without the use of kept memories.
        """
        done = 0 if fresh else self._kept.reach(array("q", ids))
        return self._room.has_place(done, len(ids), sessions)

    def kept_of(self, ids: Tokens) -> int:
        """Return the number of tokens of the longest kept memory that is a prefix of a prompt."""
        key = array("q", ids)
        return max((len(kept.key) for kept in self._kept if kept.begins(key)), default=0)

    def keep(self, session: Session) -> None:
        """Keep a session of `read` with its answer, if prefill of the answer gives the same state.

        The state is the same unless the model retrieves in execution blocks of several tokens.
        """
        if self._kept.cuts or self._block == 1:
            self._kept.keep_anew(session)
        self.trim()

    def trim(self) -> None:
        """Evict kept memories until their number and the bytes of all sessions are within limits.

        A session in use counts with the bytes that it takes once its prompt is read.
        """
        while True:
            large = not self._room.fits(kept.session for kept in self._kept)
            if not self._kept or not (self._kept.too_many or large):
                return
            self._kept.evict_one()
            self.evicted += 1

    def save(self, folder: Path) -> int:
        """Write the longest kept memory to a folder, in place of the memory in it.

        Returns:
            The number of tokens of the memory. 0 if nothing is kept: a memory in the folder is
            then removed.

        Raises:
            SavedMemoryError: the memory cannot be written.
        """
        longest = self._kept.longest()
        if longest is None:
            if (folder / NAME).exists():  # an earlier conversation, which the current one replaces
                remove(folder)
            return 0
        longest.session.save(folder, overwrite=True)
        return len(longest.key)

    def load(self, folder: Path) -> None:
        """Load a memory that `save` wrote, and keep it.

        Raises:
            SavedMemoryError: the folder holds no memory, or the memory is damaged or belongs to
                another model.
        """
        fresh = self._fresh
        session = Session.load(folder, self._model, fresh.tokenizer, fresh.chunk_size)
        self._kept.keep_anew(session)
        self.trim()

    def forget(self, text: Tokens, shared: Sequence[Tokens] = ()) -> bool:
        """Drop the kept memories that have read a text, at any position of their prompts.

        Args:
            text: the first tokens of the text, or all of them.
            shared: prompts whose memories stay although they have read the text; see `without`.

        Returns:
            True if no session in use contains the text. Otherwise memories of the text may be kept
            again later.
        """
        part = array("q", text)
        self._kept.forget(part, [array("q", prompt) for prompt in shared])
        self.trim()
        return not any(overlap(array("q", session.ids), part) for session in self._room)

    def clear(self) -> None:
        """Drop all kept memories."""
        self._kept.clear()
        self.trim()

    def fork(self) -> Self:
        """Return an independent cache with the same kept memories and no session in use."""
        twin = copy.copy(self)
        twin._room, twin._kept = self._room.fork(), self._kept.fork()
        return twin

    def fork_for_disk(self, ids: Tokens, least: int | None = None) -> Session | None:
        """Return a fork of the longest kept memory of a prompt, to save on the disk.

        Args:
            ids: the token ids of the prompt.
            least: fewest tokens by which the memory must exceed the memory on the disk; None for
                no minimum.

        Returns:
            The fork; None if there is no such memory.
        """
        key = array("q", ids)
        best = self._kept.longest(key)
        if best is None or (least is not None and len(best.key) < self._on_disk(key) + least):
            return None
        return best.session.fork()

    def _on_disk(self, key: array[int]) -> int:
        """Return the number of tokens of the longest prefix of a prompt on the disk."""
        found = None if self._disk_cache is None else self._disk_cache.best(key)
        return 0 if found is None else len(found.key)

    def _fetch(self, key: array[int]) -> None:
        """Load the memory of a prompt from the disk, if it exceeds the kept ones by a grain."""
        found = None if self._disk_cache is None else self._disk_cache.best(key)
        if found is None or self._disk_cache is None:
            return
        if len(found.key) >= self._kept.reach(key) + self.grain:
            session = self._disk_cache.load(found, self._fresh.chunk_size)
            if session is not None:
                self._kept.keep(found.key, session)

    def _marks(self, key: array[int], reused: int, boundaries: Tokens) -> list[int]:
        """Return the lengths at which to fork before the end, ascending, all more than `reused`."""
        if not self._kept.has_forks:
            return []
        places = {self._kept.shared(key), *boundaries}
        coming = range(reused, whole_blocks(self._model, len(key)))
        return marks(places, coming, self._block, self.grain)
