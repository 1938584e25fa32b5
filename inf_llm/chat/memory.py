"""Which part of a prompt is in memory already: a conversation is not read again at every turn.

A memory cannot be cut back to any length, so forks are kept at the ends of what was read (sealed
blocks are shared, windows are copied). A prompt goes on from the newest fork that it begins with.
Forks stand where an execution block ends, so that an answer is that of a fresh read; an answer's
own tokens are therefore read once more, together, with the next question.
Where every token is kept anyway (full attention) nothing is forked, but cut back instead.
"""

from __future__ import annotations

import copy
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

from inf_llm.checks import count
from inf_llm.errors import UnsupportedInputError
from inf_llm.generation import Session
from inf_llm.generation.footprint import footprint
from inf_llm.generation.prefill import Progress, execution_block

How = Literal["fresh", "continued", "went back", "rebuilt"]


@dataclass(frozen=True)
class Reuse:
    """How much of a prompt was in memory already.

    Attributes:
        prompt: tokens of the prompt.
        reused: first tokens of it that were in memory.
        how: "fresh" where nothing was read before that could help; "continued" where the prompt
            goes on from the one before; "went back" where it changes earlier tokens, and an older
            state was kept; "rebuilt" where it does and none was.
        changed_at: the first token that differs from what was read and answered before; None
            where none does.
    """

    prompt: int
    reused: int
    how: How
    changed_at: int | None = None

    @property
    def fed(self) -> int:
        """Tokens that had to be read."""
        return self.prompt - self.reused

    def __str__(self) -> str:
        changed = f", differs from token {self.changed_at:,} on" if self.changed_at else ""
        return (
            f"{self.how}: {self.reused:,} of {self.prompt:,} tokens were in memory, "
            f"{self.fed:,} were fed{changed}"
        )


class ReadingMemory:
    """Reads prompts that mostly begin alike.

    Args:
        model: a model, patched or not.
        tokenizer: the model's.
        chunk_size: tokens fed at a time.
        points: most states kept; each has a window of its own on the device. When there are more,
            the one leaves that is read again most quickly.

    Raises:
        SettingsError: `points` is less than 1.
    """

    def __init__(self, model: Any, tokenizer: Any, chunk_size: int = 8192, points: int = 4) -> None:
        points = count("points", points)
        self._fresh = Session(model, tokenizer, chunk_size)
        self._cuts = self._fresh.can_cut
        self._exact_anywhere = execution_block(model) == 1
        self._most = 1 if self._cuts else points
        self._points: list[Session] = []  # each has read a beginning of the next one
        self._last: list[int] = []
        self._asked = 0  # tokens of `_last` that were the prompt

    def read(
        self, ids: Sequence[int], on_progress: Progress | None = None
    ) -> tuple[Session, Reuse]:
        """A session that has read a prompt and can answer it, and what it took.

        Args:
            ids: the prompt, one token at least.
            on_progress: as for `Session.read`; what it raises ends the reading, and what was read
                by then is kept.
        """
        common = common_length(self._last, ids)
        session = self._start(min(common, len(ids) - 1))
        reuse = self._reuse(ids, common, session.fed)
        self._last, self._asked = list(ids), len(ids)
        try:
            session.read(ids[session.fed :], on_progress)
        finally:
            self._keep(session)
        return session, reuse

    def answered(self, session: Session) -> None:
        """The session that `read` gave has answered."""
        self._last = list(session.ids)
        if self._exact_anywhere:
            self._keep(session)

    def clear(self) -> None:
        """Forget everything."""
        self._points, self._last, self._asked = [], [], 0

    def fork(self) -> ReadingMemory:
        """A memory that goes on by itself; what is kept is shared."""
        twin = copy.copy(self)
        twin._points = [point.fork() for point in self._points] if self._cuts else [*self._points]
        return twin

    @property
    def tokens(self) -> int:
        """Tokens of what was read last, with the answer."""
        return len(self._last)

    @property
    def lengths(self) -> tuple[int, ...]:
        """Tokens that each kept state has read."""
        return tuple(point.fed for point in self._points)

    @property
    def bytes(self) -> int:
        """Of all that is kept, on host and device; what is shared counts once."""
        return footprint(self._points)

    def _start(self, usable: int) -> Session:
        """The newest kept state of at most `usable` tokens, for the caller to go on from."""
        if self._cuts and self._points:
            session = self._points[0]
            session.cut(min(usable, session.fed))
            return session
        self._points = [point for point in self._points if point.fed <= usable]
        return (self._points[-1] if self._points else self._fresh).fork()

    def _reuse(self, ids: Sequence[int], common: int, reused: int) -> Reuse:
        changed = common if common < min(len(self._last), len(ids)) else None
        goes_on = common >= min(self._asked, len(ids))
        how: How
        if not common or (goes_on and not reused):
            how = "fresh"
        elif goes_on:
            how = "continued"
        else:
            how = "went back" if reused else "rebuilt"
        return Reuse(len(ids), reused, how, changed)

    def _keep(self, session: Session) -> None:
        """Keep the state of a session as it is now."""
        if self._cuts:
            self._points = [session]
            return
        if not session.fed or (self._points and self._points[-1].fed >= session.fed):
            return
        try:
            point = session.fork()
        except UnsupportedInputError:  # a model with layers whose state cannot be copied
            return
        del point.ids[point.fed :]
        self._points.append(point)
        while len(self._points) > self._most:
            costs = [after - before for before, after in pairwise((0, *self.lengths))]
            del self._points[costs.index(min(costs[:-1]))]  # never the newest


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
