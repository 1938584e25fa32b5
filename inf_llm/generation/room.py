"""Bytes of kept sessions and of sessions in use, which still grow, against a budget."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from inf_llm.generation.footprint import Footprints
from inf_llm.generation.session import Session


class Room:
    """The sessions in use, and checks against the budget.

    Args:
        budget: bytes that all sessions may take together; None for no limit.
        needs: function from a number of tokens to the bytes of a memory that has read them; None
            if unknown.

    Attributes:
        bytes: bytes of all sessions in the last call of `fits`; shared blocks count once.
    """

    def __init__(self, budget: int | None, needs: Callable[[int], int] | None) -> None:
        self.budget = budget
        self.bytes = 0
        self._needs = needs
        self._footprints = Footprints()
        self._in_use: dict[Session, int] = {}  # values: tokens after the prompt is read

    def enter(self, session: Session, tokens: int) -> None:
        """Mark a session as in use, for a prompt of `tokens` tokens."""
        self._in_use[session] = tokens

    def leave(self, session: Session) -> None:
        """Mark a session as no longer in use."""
        del self._in_use[session]

    def __iter__(self) -> Iterator[Session]:
        return iter(self._in_use)

    def __contains__(self, session: object) -> bool:
        return session in self._in_use

    def fork(self) -> Room:
        """Return a room with the same budget and no session in use."""
        twin = Room(self.budget, self._needs)
        twin.bytes = self.bytes
        return twin

    def fits(self, kept: Iterable[Session]) -> bool:
        """Return whether kept sessions and sessions in use fit in the budget.

        A session in use counts with the bytes that it takes once its prompt is read.
        """
        sessions = {id(session): session for session in (*kept, *self._in_use)}
        self.bytes = self._footprints.of(sessions.values())
        return self.budget is None or self.bytes + self._coming() <= self.budget

    def has_place(self, done: int, total: int, sessions: int = 1) -> bool:
        """Return whether the budget allows a prompt beside the sessions in use.

        It always does if no session is in use.

        Args:
            done: tokens of the prompt that are in memory.
            total: tokens of the prompt.
            sessions: number of sessions that read the prompt.
        """
        if self._needs is None or self.budget is None or not self._in_use:
            return True
        coming = self._coming() + self._growth(done, total)
        coming += (sessions - 1) * self._growth(0, total)
        return self._footprints.of(self._in_use) + coming <= self.budget

    def _coming(self) -> int:
        return sum(self._growth(session.fed, total) for session, total in self._in_use.items())

    def _growth(self, done: int, total: int) -> int:
        return 0 if self._needs is None else max(0, self._needs(total) - self._needs(done))


class InUse:
    """The sessions in use that continue from one prompt.

    Args:
        session: session that has read the prompt and is in use.
        room: room in which the sessions are in use.
        trim: function that evicts kept memories to make room.
    """

    def __init__(self, session: Session, room: Room, trim: Callable[[], None]) -> None:
        self.session = session
        self._room, self._trim, self._all = room, trim, [session]

    def fork(self) -> Session:
        """Return a fork of the session, which is in use until `leave`."""
        fork = self.session.fork()
        self._room.enter(fork, len(fork.ids))
        self._all.append(fork)
        self._trim()
        return fork

    def leave(self) -> None:
        """Mark the session and all forks as no longer in use."""
        for session in self._all:
            self._room.leave(session)
        self._trim()
