"""The one thread that runs the model, in steps: a chunk of a prompt, or a token of every answer.

A job is a generator. It gives a number after each step that it did itself (tokens of a prompt that
it read), or a list of rows that wait for what follows them: all that wait are fed together, and
with the chunk of a prompt where they can. It gives None where it cannot go on before another job
has finished.

A row that waits is the newest token of an answer, or the end of a prompt that has been read, before
its first word.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Generator, Sequence
from typing import Any

from torch import Tensor

from inf_llm.errors import InfLLMError, TextError
from inf_llm.generation.decoding import Decoding, PromptEnd
from inf_llm.generation.rows import Company, feed_all, together
from inf_llm.serve.errors import ApiError, busy
from inf_llm.serve.turns import Turns

_log = logging.getLogger("inf_llm.serve")

Waiting = Sequence[Decoding | PromptEnd]
"""Rows of a job that wait to be fed."""
Steps = Generator[int | Waiting | None, None, Any]
"""What a job does, step by step; it returns the job's result."""

IDLE_SECONDS = 0.5
"""So long nothing must have come for the worker to be idle."""


class Job:
    """Something to do with the model, for a client.

    Args:
        client: whose it is.
        work: its steps, which run in the worker's thread; may call `emit`.
        emit: called in the worker's thread with each event: what `work` emits, then either its
            result or an `ApiError`.
        tokens: of its prompts that are not read yet; `work` counts them down.
    """

    def __init__(
        self,
        client: str,
        work: Callable[[Job], Steps],
        emit: Callable[[Any], None],
        tokens: int = 0,
    ) -> None:
        self.client, self.tokens = client, tokens
        self.emit = emit
        self.steps = work(self)
        self.cancelled = threading.Event()
        self.finished = False
        self.waits_for: Waiting = ()
        self.company = Company()
        """Rows of other jobs that its next chunk of a prompt may take along."""
        self.held_up = False
        """Whether it cannot go on before another job has finished."""
        self.alone = False
        """Whether what it has is fed without others, for a step with them failed."""
        self.reads = False
        """Whether its last step read a chunk of a prompt, so that its next one may."""
        self.put_off = False
        """Whether the end of its prompt has waited for a chunk of another job."""

    def cancel(self) -> None:
        """End before the next step; no harm if it has finished."""
        self.cancelled.set()

    @property
    def answers(self) -> bool:
        """Whether its next step is a token of each answer, not the end of a prompt."""
        return bool(self.waits_for) and all(row.answers for row in self.waits_for)

    @property
    def ends(self) -> bool:
        """Whether its next step is the end of a prompt."""
        return bool(self.waits_for) and not self.answers

    @property
    def waiting(self) -> int:
        """Tokens of the end of its prompt, where that is its next step."""
        return sum(row.waiting for row in self.waits_for) if self.ends else 0


class Worker:
    """Runs jobs, step by step.

    Args:
        limit: most jobs that may wait.
        on_failure: called with what a step failed of, before the next one begins.
        at_once: most jobs that take turns; others wait for one to finish. Those that cannot go on
            before another has finished are not among them.
        reading_share: as for `Turns`.
        on_idle: called once when nothing has come for a moment.
    """

    def __init__(
        self,
        limit: int,
        on_failure: Callable[[BaseException], None],
        at_once: int = 64,
        reading_share: float = 0.5,
        on_idle: Callable[[], None] = lambda: None,
    ) -> None:
        self._limit = limit
        self._on_idle = on_idle
        self._on_failure = on_failure
        self._at_once = at_once
        self._turns = Turns(reading_share)
        self._waiting: OrderedDict[str, deque[Job]] = OrderedDict()
        self._running: list[Job] = []
        self._changed = threading.Condition()
        self._stopping = False
        self.cancelled = 0
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether jobs are being run."""
        return self._thread.is_alive()

    @property
    def waiting(self) -> int:
        """Jobs that have not begun, or cannot go on before another has finished."""
        with self._changed:
            return sum(map(len, self._waiting.values())) + len(self._held_up())

    @property
    def running(self) -> int:
        """Jobs that take turns."""
        return len(self._able())

    @property
    def waiting_tokens(self) -> int:
        """Tokens of prompts that are not read yet."""
        with self._changed:
            waiting = [job for jobs in self._waiting.values() for job in jobs]
            return sum(job.tokens for job in (*waiting, *self._running))

    def submit(self, job: Job, always: bool = False) -> None:
        """Queue a job, `always` however many there are.

        Raises:
            ApiError: too many wait already, or the server is stopping.
        """
        with self._changed:
            if self._stopping:
                raise ApiError(503, "the server is stopping", "stopping")
            waiting = [job for jobs in self._waiting.values() for job in jobs] + self._held_up()
            if not always and sum(not job.cancelled.is_set() for job in waiting) >= self._limit:
                raise busy(429, f"{self._limit} requests are waiting already")
            self._waiting.setdefault(job.client, deque()).append(job)
            self._changed.notify()

    def stop(self, seconds: float) -> bool:
        """Cancel everything; whether it ended in time."""
        with self._changed:
            self._stopping = True
            for job in (*self._running, *(job for jobs in self._waiting.values() for job in jobs)):
                job.cancel()
            self._changed.notify()
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while self._wait():
            self._admit()
            for job in self._running[:]:
                if job.cancelled.is_set():
                    self._cancel(job)
            if self._running:
                self._take_turn()

    def _wait(self) -> bool:
        """Wait until there is something to do; false where nothing will come."""
        if not self._something(IDLE_SECONDS):
            self._on_idle()
        return self._something(None) and bool(self._waiting or self._running)

    def _something(self, seconds: float | None) -> bool:
        """Wait so long for jobs, or for the end; whether there is one of them."""
        with self._changed:
            return self._changed.wait_for(
                lambda: bool(self._waiting or self._running or self._stopping), seconds
            )

    def _admit(self) -> None:
        """Let jobs begin that wait, each client's first before another's second."""
        with self._changed:
            while self._waiting and len(self._able()) < self._at_once:
                client, jobs = self._waiting.popitem(last=False)
                self._running.append(jobs.popleft())
                if jobs:
                    self._waiting[client] = jobs  # behind all others

    def _able(self) -> list[Job]:
        """Jobs that have begun and can go on."""
        return [job for job in self._running if not job.held_up]

    def _held_up(self) -> list[Job]:
        return [job for job in self._running if job.held_up]

    def _take_turn(self) -> None:
        able = self._able()[: self._at_once] or self._running
        turn = self._turns.next(able)
        reads = [job for job in able if job.reads]
        apart = turn[0].ends and bool(reads)
        if apart and not (self._turns.apart or turn[0].put_off):
            turn[0].put_off, apart = True, False
            turn = [self._turns.first(reads)]
        along = [job for job in able if job.waits_for and job is not turn[0]]
        started, answer = time.perf_counter(), turn[0].answers
        tokens, alongside = 0, None
        if answer:
            for jobs in _passes(turn):
                self._answer(jobs)
        else:
            tokens, alongside = self._read(turn[0], along)
        seconds = time.perf_counter() - started
        self._turns.spent(turn, answer, tokens, seconds, alongside, apart)

    def _read(self, job: Job, others: list[Job]) -> tuple[int, bool | None]:
        """A step of a prompt, with what others wait for where one pass feeds both.

        Returns:
            Tokens of the prompt; and whether others were fed, None where none could have been.
        """
        others = [] if job.alone else [other for other in others if not other.alone]
        rows = [row for other in others for row in other.waits_for]
        if not job.waits_for:
            return self._read_on(job, others, rows)
        tokens = job.waiting
        alongside = together([*job.waits_for, *rows]) if rows else None
        self._answer([job, *others] if alongside else [job])
        return tokens, alongside

    def _read_on(self, job: Job, others: list[Job], rows: Waiting) -> tuple[int, bool | None]:
        """A chunk of a prompt, in the company of rows of others."""
        company = job.company
        company.rows, company.logits, company.error = rows, (), None
        tokens = self._go_on(job)
        if company.rows or not rows:  # it did something else
            company.rows = ()
            return tokens, None
        if company.logits:
            self._choose(others, company.logits)
        elif company.error is not None:
            job.alone = True
            self._go_on_alone(others, company.error)
        return tokens, bool(company.logits)

    def _answer(self, jobs: list[Job]) -> None:
        """Feed what waits in jobs, and let each row take its next token."""
        rows = [row for job in jobs for row in job.waits_for]
        try:
            fed = _feed(rows, apart=jobs[0].alone)
        except Exception as error:
            self._feed_failed(jobs, error)
        else:
            self._choose(jobs, fed)

    def _choose(self, jobs: list[Job], fed: Sequence[Tensor]) -> None:
        """Let each row of some jobs take its next token, of whose logits these are."""
        rows = [(job, row) for job in jobs for row in job.waits_for]
        failed: dict[Job, Exception] = {}
        for (job, row), logits in zip(rows, fed, strict=True):
            try:
                row.choose(logits)
            except Exception as error:
                failed[job] = error
        for job in jobs:
            self._go_on(job, failed.get(job))

    def _feed_failed(self, jobs: list[Job], error: Exception) -> None:
        """One row fails; several go on one by one, after what was let go is read again."""
        if jobs[0].alone or (len(jobs) == 1 and len(jobs[0].waits_for) == 1):
            self._go_on(jobs[0], error)
            return
        self._go_on_alone(jobs, error)

    def _go_on_alone(self, jobs: list[Job], error: Exception) -> None:
        self._on_failure(error)
        for job in jobs:
            job.alone = True
            self._go_on(job)

    def _go_on(self, job: Job, error: Exception | None = None) -> int:
        """Run a job to the end of its next step of its own; the tokens that this read."""
        try:
            given = next(job.steps) if error is None else job.steps.throw(error)
        except StopIteration as end:
            self._finish(job, end.value)
        except Exception as failure:  # the server must outlive whatever a request brings
            self._on_failure(failure)
            self._finish(job, _as_api_error(failure))
        else:
            job.waits_for = given if isinstance(given, Sequence) else ()
            job.reads, job.put_off = isinstance(given, int) and given > 0, False
            if job.held_up and given is not None:
                self._let_go()
            job.held_up = given is None
            return given if isinstance(given, int) else 0
        return 0

    def _cancel(self, job: Job) -> None:
        self.cancelled += 1
        try:
            job.steps.close()
        except Exception as failure:
            self._on_failure(failure)
        self._finish(job, ApiError(503, "the request was cancelled", "cancelled"))

    def _let_go(self) -> None:
        """Jobs that are held up may look again whether they can go on."""
        for job in self._running:
            job.held_up = False

    def _finish(self, job: Job, result: Any) -> None:
        with self._changed:
            self._running.remove(job)
        self._let_go()
        job.waits_for = ()
        job.finished = True
        try:
            job.emit(result)
        except Exception as failure:  # the thread outlives this, too
            _log.error("a result was lost", exc_info=failure)


def _feed(rows: Waiting, apart: bool) -> list[Tensor]:
    """The logits of what follows in each row, fed together or one after another."""
    return [logits for row in rows for logits in feed_all([row])] if apart else feed_all(rows)


def _passes(answers: list[Job]) -> list[list[Job]]:
    """Those that are fed in one pass each."""
    together = [job for job in answers if not job.alone]
    return [*([together] if together else []), *([job] for job in answers if job.alone)]


def _as_api_error(error: Exception) -> ApiError:
    if isinstance(error, ApiError):
        return error
    if isinstance(error, TextError):
        return ApiError(400, str(error), "context_length_exceeded")
    if isinstance(error, InfLLMError):
        return ApiError(400, str(error))
    _log.error("a request failed", exc_info=error)
    if isinstance(error, MemoryError) or "out of memory" in str(error).lower():
        return ApiError(503, "out of memory: try a shorter text", "out_of_memory")
    return ApiError(500, f"the request failed ({type(error).__name__})", "internal_error")
