"""The one thread that runs the model, and who is next.

Jobs of one client run in the order they came; between clients it is each in turn, so that one who
asks ten things does not make nine others wait for all ten.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any

from inf_llm.errors import InfLLMError, TextError
from inf_llm.serve.errors import ApiError, busy

_log = logging.getLogger("inf_llm.serve")


class Cancelled(Exception):  # noqa: N818 (nothing went wrong)
    """The client of a job has left."""


class Job:
    """Something to do with the model, for a client.

    Args:
        client: whose it is.
        work: does it, in the worker's thread; may call `emit` and must call `check` often.
        emit: called in the worker's thread with each event: what `work` emits, then either its
            result or an `ApiError`.
    """

    def __init__(
        self, client: str, work: Callable[[Job], Any], emit: Callable[[Any], None]
    ) -> None:
        self.client = client
        self.work = work
        self.emit = emit
        self.cancelled = threading.Event()
        self.finished = False

    def cancel(self) -> None:
        """Stop soon; no harm if it has finished."""
        self.cancelled.set()

    def check(self) -> None:
        """Go on only while the client waits.

        Raises:
            Cancelled: it has left.
        """
        if self.cancelled.is_set():
            raise Cancelled


class Worker:
    """Runs jobs, one at a time.

    Args:
        limit: most jobs that may wait.
        on_failure: called with what a job failed of, before the next one begins.
    """

    def __init__(self, limit: int, on_failure: Callable[[BaseException], None]) -> None:
        self._limit = limit
        self._on_failure = on_failure
        self._waiting: OrderedDict[str, deque[Job]] = OrderedDict()
        self._changed = threading.Condition()
        self._stopping = False
        self._running: Job | None = None
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
        """Jobs that wait."""
        with self._changed:
            return sum(map(len, self._waiting.values()))

    @property
    def running(self) -> int:
        """Jobs that run: 0 or 1."""
        return int(self._running is not None)

    def submit(self, job: Job) -> None:
        """Queue a job.

        Raises:
            ApiError: too many wait already, or the server is stopping.
        """
        with self._changed:
            if self._stopping:
                raise ApiError(503, "the server is stopping", "stopping")
            waiting = [job for jobs in self._waiting.values() for job in jobs]
            if sum(not job.cancelled.is_set() for job in waiting) >= self._limit:
                raise busy(429, f"{self._limit} requests are waiting already")
            self._waiting.setdefault(job.client, deque()).append(job)
            self._changed.notify()

    def stop(self, seconds: float) -> bool:
        """Cancel everything; whether it ended in time."""
        with self._changed:
            self._stopping = True
            for jobs in self._waiting.values():
                for job in jobs:
                    job.cancel()
            if self._running is not None:
                self._running.cancel()
            self._changed.notify()
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _next(self) -> Job | None:
        with self._changed:
            self._running = None
            while not self._waiting:
                if self._stopping:
                    return None
                self._changed.wait()
            client, jobs = self._waiting.popitem(last=False)
            job = self._running = jobs.popleft()
            if jobs:
                self._waiting[client] = jobs  # behind all others
            return job

    def _run(self) -> None:
        while (job := self._next()) is not None:
            try:
                job.check()
                result = job.work(job)
            except Cancelled:
                self.cancelled += 1
                result = ApiError(503, "the request was cancelled", "cancelled")
            except Exception as error:  # the server must outlive whatever a request brings
                self._on_failure(error)
                result = _as_api_error(error)
            job.finished = True
            job.emit(result)
            del job, result


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
