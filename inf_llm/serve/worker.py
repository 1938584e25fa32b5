"""The one thread that runs the model, in steps: a chunk of a prompt, or a token of every answer.

A job is a generator. It yields the number of prompt tokens that its own step has read, or a list of
waiting rows, each of which needs the logits of its next token. The worker feeds the waiting rows of
all jobs in one forward pass, together with the chunk of a prompt where possible. A job yields None
if it cannot continue before another job has finished.

A waiting row is the newest token of an answer, or the end of a prompt before the first token of its
answer.
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
from inf_llm.generation.rows import Piggyback, feed_all, together
from inf_llm.serve.errors import ApiError, busy
from inf_llm.serve.scheduler import Scheduler

_log = logging.getLogger("inf_llm.serve")

Waiting = Sequence[Decoding | PromptEnd]
"""Rows of a job that wait for the next forward pass."""
Steps = Generator[int | Waiting | None, None, Any]
"""The steps of a job; the generator returns the job's result."""

IDLE_SECONDS = 0.5
"""Seconds without a job after which the worker is idle."""


class Job:
    """Work that a client requested from the model.

    Args:
        client: name of the client.
        work: makes the steps, which run in the worker's thread and may call `emit`.
        emit: called in the worker's thread with each event of `work`, and at last with its result
            or an `ApiError`.
        tokens: prompt tokens that are not read yet; `work` counts them down.
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
        self.pending_rows: Waiting = ()
        self.piggyback = Piggyback()
        """Rows of other jobs, to be fed in one pass with the job's next prompt chunk."""
        self.blocked = False
        """Whether the job cannot continue before another job has finished."""
        self.alone = False
        """Whether its rows are fed without those of other jobs, as a joint step failed."""
        self.reads = False
        """Whether its last step read a prompt chunk, so that its next step may read one too."""
        self.deferred = False
        """Whether the end of its prompt was deferred once, to be fed with another job's chunk."""

    def cancel(self) -> None:
        """End the job before its next step; no effect on a finished job."""
        self.cancelled.set()

    @property
    def answers(self) -> bool:
        """Whether the next step is one token of each answer, not the end of a prompt."""
        return bool(self.pending_rows) and all(row.answers for row in self.pending_rows)

    @property
    def ends(self) -> bool:
        """Whether the next step feeds the end of a prompt."""
        return bool(self.pending_rows) and not self.answers

    @property
    def waiting(self) -> int:
        """Tokens of the prompt end that the next step feeds; 0 for any other step."""
        return sum(row.waiting for row in self.pending_rows) if self.ends else 0


class Worker:
    """Runs jobs, step by step.

    Args:
        limit: most jobs that may wait.
        on_failure: called with the exception of a failed step, before the next step begins.
        at_once: most jobs that take turns; others wait for one to finish. Jobs with `blocked` do
            not count.
        reading_share: see `Scheduler`.
        on_idle: called once when no job has come for `IDLE_SECONDS`.
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
        self._scheduler = Scheduler(reading_share)
        self._waiting: OrderedDict[str, deque[Job]] = OrderedDict()
        self._running: list[Job] = []
        self._changed = threading.Condition()
        self._stopping = False
        self.cancelled = 0
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)

    def start(self) -> None:
        """Start the worker's thread."""
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the worker's thread runs."""
        return self._thread.is_alive()

    @property
    def waiting(self) -> int:
        """Number of jobs that have not begun, or that cannot continue before another ends."""
        with self._changed:
            return sum(map(len, self._waiting.values())) + len(self._blocked())

    @property
    def running(self) -> int:
        """Number of jobs that take turns."""
        return len(self._runnable())

    @property
    def waiting_tokens(self) -> int:
        """Number of prompt tokens that are not read yet."""
        with self._changed:
            waiting = [job for jobs in self._waiting.values() for job in jobs]
            return sum(job.tokens for job in (*waiting, *self._running))

    def submit(self, job: Job, always: bool = False) -> None:
        """Queue a job.

        Args:
            job: the job.
            always: ignore the limit on waiting jobs.

        Raises:
            ApiError: too many jobs wait already, or the server is stopping.
        """
        with self._changed:
            if self._stopping:
                raise ApiError(503, "the server is stopping", "stopping")
            waiting = [job for jobs in self._waiting.values() for job in jobs] + self._blocked()
            if not always and sum(not job.cancelled.is_set() for job in waiting) >= self._limit:
                raise busy(429, f"{self._limit} requests are waiting already")
            self._waiting.setdefault(job.client, deque()).append(job)
            self._changed.notify()

    def stop(self, seconds: float) -> bool:
        """Cancel all jobs; return whether the thread ended within `seconds`."""
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
        """Wait for a job; return False if the worker is stopping and no job is left."""
        if not self._something(IDLE_SECONDS):
            self._on_idle()
        return self._something(None) and bool(self._waiting or self._running)

    def _something(self, seconds: float | None) -> bool:
        """Wait up to `seconds` for a job or the stop signal; return whether either is there."""
        with self._changed:
            return self._changed.wait_for(
                lambda: bool(self._waiting or self._running or self._stopping), seconds
            )

    def _admit(self) -> None:
        """Start waiting jobs, one of each client in turn, up to `at_once` jobs."""
        with self._changed:
            while self._waiting and len(self._runnable()) < self._at_once:
                client, jobs = self._waiting.popitem(last=False)
                self._running.append(jobs.popleft())
                if jobs:
                    self._waiting[client] = jobs  # the client goes to the end of the queue

    def _runnable(self) -> list[Job]:
        """Return the jobs that have begun and can continue."""
        return [job for job in self._running if not job.blocked]

    def _blocked(self) -> list[Job]:
        return [job for job in self._running if job.blocked]

    def _take_turn(self) -> None:
        able = self._runnable()[: self._at_once] or self._running
        turn = self._scheduler.next(able)
        reads = [job for job in able if job.reads]
        apart = turn[0].ends and bool(reads)
        if apart and not (self._scheduler.apart or turn[0].deferred):
            turn[0].deferred, apart = True, False
            turn = [self._scheduler.first(reads)]
        along = [job for job in able if job.pending_rows and job is not turn[0]]
        started, answer = time.perf_counter(), turn[0].answers
        tokens, alongside = 0, None
        if answer:
            for jobs in _passes(turn):
                self._answer(jobs)
        else:
            tokens, alongside = self._read(turn[0], along)
        seconds = time.perf_counter() - started
        self._scheduler.record_turn(turn, answer, tokens, seconds, alongside, apart)

    def _read(self, job: Job, others: list[Job]) -> tuple[int, bool | None]:
        """Run a step of a prompt, with the waiting rows of other jobs if one pass can feed both.

        Returns:
            Prompt tokens of the step; and whether the other rows were fed, None if that was not
            possible.
        """
        others = [] if job.alone else [other for other in others if not other.alone]
        rows = [row for other in others for row in other.pending_rows]
        if not job.pending_rows:
            return self._read_on(job, others, rows)
        tokens = job.waiting
        alongside = together([*job.pending_rows, *rows]) if rows else None
        self._answer([job, *others] if alongside else [job])
        return tokens, alongside

    def _read_on(self, job: Job, others: list[Job], rows: Waiting) -> tuple[int, bool | None]:
        """Read a chunk of a prompt in one pass with the waiting rows of other jobs."""
        piggyback = job.piggyback
        piggyback.rows, piggyback.logits, piggyback.error = rows, (), None
        tokens = self._advance(job)
        if piggyback.rows or not rows:  # the step fed no chunk, or there were no rows to feed
            piggyback.rows = ()
            return tokens, None
        if piggyback.logits:
            self._choose(others, piggyback.logits)
        elif piggyback.error is not None:
            job.alone = True
            self._advance_unbatched(others, piggyback.error)
        return tokens, bool(piggyback.logits)

    def _answer(self, jobs: list[Job]) -> None:
        """Feed the waiting rows of the jobs and choose the next token of each row."""
        rows = [row for job in jobs for row in job.pending_rows]
        try:
            fed = _feed(rows, apart=jobs[0].alone)
        except Exception as error:
            self._feed_failed(jobs, error)
        else:
            self._choose(jobs, fed)

    def _choose(self, jobs: list[Job], fed: Sequence[Tensor]) -> None:
        """Choose the next token of each row of the jobs, from the logits `fed` of each row."""
        rows = [(job, row) for job in jobs for row in job.pending_rows]
        failed: dict[Job, Exception] = {}
        for (job, row), logits in zip(rows, fed, strict=True):
            try:
                row.choose(logits)
            except Exception as error:
                failed[job] = error
        for job in jobs:
            self._advance(job, failed.get(job))

    def _feed_failed(self, jobs: list[Job], error: Exception) -> None:
        """Fail a job that was fed alone or is a single row; let several continue one by one.

        Each continuing job first reads again what its memory lost in the failed pass.
        """
        if jobs[0].alone or (len(jobs) == 1 and len(jobs[0].pending_rows) == 1):
            self._advance(jobs[0], error)
            return
        self._advance_unbatched(jobs, error)

    def _advance_unbatched(self, jobs: list[Job], error: Exception) -> None:
        self._on_failure(error)
        for job in jobs:
            job.alone = True
            self._advance(job)

    def _advance(self, job: Job, error: Exception | None = None) -> int:
        """Run the job's generator to its next yield; return the prompt tokens that it read."""
        try:
            given = next(job.steps) if error is None else job.steps.throw(error)
        except StopIteration as end:
            self._finish(job, end.value)
        except Exception as failure:  # no request may end the worker's thread
            self._on_failure(failure)
            self._finish(job, _as_api_error(failure))
        else:
            job.pending_rows = given if isinstance(given, Sequence) else ()
            job.reads, job.deferred = isinstance(given, int) and given > 0, False
            if job.blocked and given is not None:
                self._unblock_all()
            job.blocked = given is None
            return given if isinstance(given, int) else 0
        return 0

    def _cancel(self, job: Job) -> None:
        self.cancelled += 1
        try:
            job.steps.close()
        except Exception as failure:
            self._on_failure(failure)
        self._finish(job, ApiError(503, "the request was cancelled", "cancelled"))

    def _unblock_all(self) -> None:
        """Clear `blocked` of all jobs, so that each checks again whether it can continue."""
        for job in self._running:
            job.blocked = False

    def _finish(self, job: Job, result: Any) -> None:
        with self._changed:
            self._running.remove(job)
        self._unblock_all()
        job.pending_rows = ()
        job.finished = True
        try:
            job.emit(result)
        except Exception as failure:  # a failing `emit` must not end the thread
            _log.error("a result was lost", exc_info=failure)


def _feed(rows: Waiting, apart: bool) -> list[Tensor]:
    """Return the logits of each row's next token, from one pass or from one pass per row."""
    return [logits for row in rows for logits in feed_all([row])] if apart else feed_all(rows)


def _passes(answers: list[Job]) -> list[list[Job]]:
    """Group jobs by forward pass: jobs with `alone` have one each, all others share one."""
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
