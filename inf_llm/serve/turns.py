"""Whose turn it is: one prompt that is read, or all answers.

Between prompts it goes by tokens read so far, of each client and then of each of its prompts, the
fewest first, and those with as many in the order they came. What is new counts as one with the
fewest of those that are not, and `AHEAD` fewer. So texts are read evenly however long they are, and
a short prompt does not wait for a long one. One that was passed over for two rounds goes first, so
that no stream of short ones holds it up for ever. Steps that read nothing count for nothing, and go
before ends of prompts, which count as read: so all ends that can be fed together are.

Between reading and answering it goes by time, in shares. What is new may overdraw the share of
reading, so that its first word does not wait for answers; longer texts then wait for it to be made
up. Where answers have a token with every chunk of a prompt, almost for nothing, they ask for time
of their own later: a short answer ends without it.

The end of a new prompt is fed by itself, which gives its first word soonest, for a small part of
the time. Where that is used up, it waits for the next chunk of another text and is fed with it, for
a fraction of the cost: so many short questions do not hold a text up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

AHEAD = 1024
"""Tokens that a new prompt may read before others have their turn: a short one, all of it."""

OVERDRAFT = 2.0
"""Seconds, of time divided by its share, that reading may be ahead of answering for new prompts."""

LAG = 3.0
"""The same for any prompt that answers have tokens with."""

BESIDE = 8
"""Tokens that an answer has with chunks of prompts before answers ask for time of their own, where
that takes longer than `LAG`."""

APART = 0.15
"""Part of the time in which ends of prompts are fed by themselves while a text is read."""

SAVED = 0.5
"""Seconds of it that can be saved up."""

_Key = TypeVar("_Key")


class Task(Protocol):
    """What is done in steps for a client."""

    client: str

    @property
    def answers(self) -> bool:
        """Whether its next step is a token of an answer."""

    @property
    def waiting(self) -> int:
        """Tokens that its next step feeds, where they are the end of a prompt; else 0."""


_Task = TypeVar("_Task", bound=Task)


@dataclass
class _Account:
    """Tokens read for a client or a prompt.

    Attributes:
        tokens: so many; it began with `AHEAD` fewer than `fewest`, which another one had then.
        passed: how often others have read since it did.
    """

    tokens: int = 0
    fewest: int = 0
    passed: int = 0

    @property
    def new(self) -> bool:
        """Whether it has not read more than others were ahead of it."""
        return self.tokens < self.fewest


@dataclass
class Turns:
    """Shares the model's time.

    Args:
        reading_share: part of the time for prompts while there are answers too, within 0 to 1.
    """

    reading_share: float
    _clients: dict[str, _Account] = field(default_factory=dict)
    _tasks: dict[Task, _Account] = field(default_factory=dict)
    _clock: dict[bool, float] = field(default_factory=lambda: {False: 0.0, True: 0.0})
    _going: set[bool] = field(default_factory=set)
    _alongside: bool | None = None
    _chunk: float = 0.0
    _apart: float = SAVED

    def next(self, tasks: list[_Task]) -> list[_Task]:
        """Those of some tasks, at least one, whose turn it is: one that reads, or all answers."""
        self._note_who_is_there(tasks)
        answers = [task for task in tasks if task.answers]
        reads = [task for task in tasks if not task.answers]
        self._note_kinds({kind for kind, some in ((True, answers), (False, reads)) if some})
        ahead = self._clock[False] - self._clock[True] - self._lag
        if answers and ahead >= 0:
            reads = [task for task in reads if self._tasks[task].new and ahead < OVERDRAFT]
        return [self.first(reads)] if reads else answers

    @property
    def _lag(self) -> float:
        """Seconds of time by shares that reading may be ahead before answers have time."""
        return max(LAG, BESIDE * self._chunk / self.reading_share) if self._alongside else 0.0

    @property
    def apart(self) -> bool:
        """Whether the end of a prompt is fed by itself, though another text is read."""
        return self._apart > 0 or self._alongside is False

    def spent(
        self,
        turn: Sequence[Task],
        answers: bool,
        tokens: int,
        seconds: float,
        alongside: bool | None = None,
        apart: bool = False,
    ) -> None:
        """A turn took so many seconds, for answers or to read so many tokens.

        Args:
            turn: those whose turn it was.
            answers: whether they took a token each; else one read.
            tokens: of a prompt that were read.
            seconds: it took.
            alongside: whether answers had a token with a prompt; None where there were none.
            apart: whether it was the end of a prompt, by itself, while another text is read.
        """
        self._apart = min(SAVED, self._apart + APART * seconds) - (seconds if apart else 0)
        if alongside is not None:
            self._alongside, self._chunk = alongside, seconds
        share = 1 - self.reading_share if answers else self.reading_share
        self._clock[answers] += seconds / share
        if not answers:
            own = self._tasks[turn[0]]
            for account in self._tasks.values() if tokens else ():
                account.passed += 1
            own.passed = 0
            own.tokens += tokens
            self._clients[turn[0].client].tokens += tokens

    def first(self, reads: list[_Task]) -> _Task:
        """Whose turn it is, of some that read and that `next` was given."""
        late = max(reads, key=lambda task: self._tasks[task].passed)
        if self._tasks[late].passed > 2 * len(reads):
            return late
        return min(reads, key=self._read_by)

    def _read_by(self, task: Task) -> tuple[int, int]:
        """Tokens read for a task's client, and for itself with those that wait to be fed."""
        return self._clients[task.client].tokens, self._tasks[task].tokens + task.waiting

    def _note_who_is_there(self, tasks: Sequence[Task]) -> None:
        known, self._tasks = self._tasks, {}
        for client in {task.client for task in tasks}:
            own = [task for task in tasks if task.client == client]
            self._tasks |= _kept({task: known[task] for task in own if task in known}, own)
        self._clients = _kept(self._clients, [task.client for task in tasks])

    def _note_kinds(self, there: set[bool]) -> None:
        """What was not there for a while has no claim to the time that has passed."""
        for kind in there - self._going:
            self._clock[kind] = max(self._clock.values())
        self._going = there


def _kept(known: dict[_Key, _Account], keys: list[_Key]) -> dict[_Key, _Account]:
    """The accounts of these keys; for new ones see the module's text."""
    there = {key: known[key] for key in keys if key in known}
    fewest = min((max(each.tokens, each.fewest) for each in there.values()), default=0)
    return {key: there[key] if key in there else _Account(fewest - AHEAD, fewest) for key in keys}
