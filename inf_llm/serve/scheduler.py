"""The scheduler: each turn goes to one prompt that is read, or to all answers.

Prompts are ordered by the number of tokens read so far, first per client, then per prompt: the
fewest first, and equal numbers in order of arrival. A new client or prompt starts `AHEAD` tokens
below the lowest number of those that are not new. So texts are read evenly whatever their length,
and a short prompt does not wait for a long one. A prompt that was skipped for two rounds goes
first, so that a stream of short prompts cannot starve it. A step that reads no tokens does not
count. The waiting tokens of a prompt's end count as read, so that such steps come before the ends
of prompts, and all ends that can be fed together are fed together.

Reading and answering get shares of the time. A new prompt may overdraw the share of reading, so
that its first token does not wait for answers; longer texts then wait until the overdraft is paid
back. If answers get a token with every chunk of a prompt, at almost no cost, their own turns come
later, and a short answer ends before it needs one.

The end of a new prompt is fed by itself, which gives the earliest first token, for a small share of
the time. When that share is used up, the end waits for the next chunk of another text and is fed
together with the chunk, at a fraction of the cost. So many short questions do not delay a text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

AHEAD = 1024
"""Tokens that a new prompt may read before others have their turn; a short prompt fits wholly."""

OVERDRAFT = 2.0
"""Seconds that reading of new prompts may be ahead of answering, in time divided by its share."""

LAG = 3.0
"""Seconds, as above, that reading of any prompt may be ahead if answers get tokens with chunks."""

BESIDE = 8
"""Tokens that an answer gets with chunks of prompts before answers get turns of their own, if that
takes longer than `LAG`."""

APART = 0.15
"""Share of the time for feeding ends of prompts by themselves while a text is read."""

SAVED = 0.5
"""Most seconds of this time that can be saved up."""

_Key = TypeVar("_Key")


class Task(Protocol):
    """A job of a client that runs in steps."""

    client: str

    @property
    def answers(self) -> bool:
        """Whether the next step is a token of an answer."""

    @property
    def waiting(self) -> int:
        """Tokens of the prompt end that the next step feeds; 0 for any other step."""


_Task = TypeVar("_Task", bound=Task)


@dataclass
class _Account:
    """Tokens read for a client or a prompt.

    Attributes:
        tokens: the number of tokens, which starts at `fewest - AHEAD`.
        fewest: the lowest number of the accounts that were not new when this account started.
        passed: number of steps in which others have read since this prompt last did.
    """

    tokens: int = 0
    fewest: int = 0
    passed: int = 0

    @property
    def new(self) -> bool:
        """Whether the account has not reached `fewest` yet."""
        return self.tokens < self.fewest


@dataclass
class Scheduler:
    """The schedule of the model's time.

    Args:
        reading_share: share of the time for prompts while there are answers too, between 0 and 1.
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
        """Return the tasks of the next turn, from at least one: one that reads, or all answers."""
        self._update_accounts(tasks)
        answers = [task for task in tasks if task.answers]
        reads = [task for task in tasks if not task.answers]
        self._update_clocks({kind for kind, some in ((True, answers), (False, reads)) if some})
        ahead = self._clock[False] - self._clock[True] - self._lag
        if answers and ahead >= 0:
            reads = [task for task in reads if self._tasks[task].new and ahead < OVERDRAFT]
        return [self.first(reads)] if reads else answers

    @property
    def _lag(self) -> float:
        """Seconds, as for `LAG`, that reading may be ahead before answers get their own turn."""
        return max(LAG, BESIDE * self._chunk / self.reading_share) if self._alongside else 0.0

    @property
    def apart(self) -> bool:
        """Whether the end of a prompt may be fed by itself while another text is read."""
        return self._apart > 0 or self._alongside is False

    def record_turn(
        self,
        turn: Sequence[Task],
        answers: bool,
        tokens: int,
        seconds: float,
        alongside: bool | None = None,
        apart: bool = False,
    ) -> None:
        """Record the time and the tokens of a turn.

        Args:
            turn: the tasks of the turn.
            answers: whether each task took a token of an answer; otherwise one task read a prompt.
            tokens: number of prompt tokens that were read.
            seconds: duration of the turn.
            alongside: whether answers got a token with the prompt; None if that was not possible.
            apart: whether the turn fed the end of a prompt by itself while another text is read.
        """
        self._apart = min(SAVED, self._apart + APART * seconds) - (seconds if apart else 0)
        if alongside is not None:
            self._alongside, self._chunk = alongside, seconds
        share = 1 - self.reading_share if answers else self.reading_share
        self._clock[answers] += seconds / share
        if not answers:
            current = self._tasks[turn[0]]
            if tokens:
                for account in self._tasks.values():
                    account.passed += 1
            current.passed = 0
            current.tokens += tokens
            self._clients[turn[0].client].tokens += tokens

    def first(self, reads: list[_Task]) -> _Task:
        """Return the task that reads next, of reading tasks that `next` has seen."""
        late = max(reads, key=lambda task: self._tasks[task].passed)
        if self._tasks[late].passed > 2 * len(reads):
            return late
        return min(reads, key=self._priority)

    def _priority(self, task: Task) -> tuple[int, int]:
        """Return the tokens read for a task's client, and those read or waiting for the task."""
        return self._clients[task.client].tokens, self._tasks[task].tokens + task.waiting

    def _update_accounts(self, tasks: Sequence[Task]) -> None:
        """Drop the accounts of tasks and clients that are gone, and open those of new ones."""
        known, self._tasks = self._tasks, {}
        for client in {task.client for task in tasks}:
            of_client = [task for task in tasks if task.client == client]
            self._tasks |= _kept(
                {task: known[task] for task in of_client if task in known}, of_client
            )
        self._clients = _kept(self._clients, [task.client for task in tasks])

    def _update_clocks(self, there: set[bool]) -> None:
        """Advance the clock of a kind that was absent, which has no claim to past time."""
        for kind in there - self._going:
            self._clock[kind] = max(self._clock.values())
        self._going = there


def _kept(known: dict[_Key, _Account], keys: list[_Key]) -> dict[_Key, _Account]:
    """Return the accounts of these keys, with new accounts as the module's docstring says."""
    there = {key: known[key] for key in keys if key in known}
    fewest = min((max(each.tokens, each.fewest) for each in there.values()), default=0)
    return {key: there[key] if key in there else _Account(fewest - AHEAD, fewest) for key in keys}
