"""Memory that sessions take: those kept, and those in use, which still grow."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from inf_llm.generation.footprint import Footprints
from inf_llm.generation.session import Session


class Room:
    """What there is room for.

    Args:
        budget: bytes that all sessions may take together; None for no limit.
        needs: the bytes of a memory that has read so many tokens; None where that is not known.

    Attributes:
        bytes: that all took when `fits` was asked last; what is shared counts once.
    """

    def __init__(self, budget: int | None, needs: Callable[[int], int] | None) -> None:
        self.budget = budget
        self.bytes = 0
        self._needs = needs
        self._footprints = Footprints()
        self._in_use: dict[Session, int] = {}  # and how many tokens they will have read

    def enter(self, session: Session, tokens: int) -> None:
        """A session is in use, and will have read so many tokens."""
        self._in_use[session] = tokens

    def leave(self, session: Session) -> None:
        """A session is not used any more."""
        del self._in_use[session]

    def __iter__(self) -> Iterator[Session]:
        return iter(self._in_use)

    def __contains__(self, session: object) -> bool:
        return session in self._in_use

    def fork(self) -> Room:
        """The same with no session in use."""
        twin = Room(self.budget, self._needs)
        twin.bytes = self.bytes
        return twin

    def fits(self, kept: Iterable[Session]) -> bool:
        """Whether there is room for sessions, and those in use with all that they will take."""
        sessions = {id(session): session for session in (*kept, *self._in_use)}
        self.bytes = self._footprints.of(sessions.values())
        return self.budget is None or self.bytes + self._coming() <= self.budget

    def has_place(self, done: int, total: int, sessions: int = 1) -> bool:
        """Whether a prompt of `total` tokens, of which `done` are in memory, can be read beside
        those in use, by so many sessions. One prompt alone always can.
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
    """Sessions that go on from one prompt.

    Args:
        session: has read it, and is in use.
        room: counts what they take.
        trim: makes room.
    """

    def __init__(self, session: Session, room: Room, trim: Callable[[], None]) -> None:
        self.session = session
        self._room, self._trim, self._all = room, trim, [session]

    def fork(self) -> Session:
        """A fork of the session, in use as long as that."""
        fork = self.session.fork()
        self._room.enter(fork, len(fork.ids))
        self._all.append(fork)
        self._trim()
        return fork

    def leave(self) -> None:
        """None is used any more."""
        for session in self._all:
            self._room.leave(session)
        self._trim()
