"""Texts that are being read: one job for each text, and any number of clients that watch it."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from inf_llm.serve.answers import Reading
from inf_llm.serve.completions import PULSE_SECONDS, Exchange
from inf_llm.serve.documents import Document
from inf_llm.serve.errors import ApiError
from inf_llm.serve.jobs import Read
from inf_llm.serve.wire import DONE, comment, event

_log = logging.getLogger("inf_llm.serve")

Commit = Callable[[Read], Awaitable[Document]]
MAX_FAILURES = 256


class Reader:
    """The reading of one document, from its job to its commit.

    Args:
        document: the document; at least its id and text are set.
        exchange: the exchange with the job that reads the document.
        commit: stores the document, so that questions can refer to it.
    """

    def __init__(self, document: Document, exchange: Exchange, commit: Commit) -> None:
        self.document = document
        self._exchange = exchange
        self._commit = commit
        self._now = Reading(0, 0)
        self._changed = asyncio.Event()
        self._stopped = self._committing = False
        self._task = asyncio.create_task(self._run())
        self._task.add_done_callback(_log_failure)

    async def _run(self) -> Document:
        try:
            while not isinstance(update := await self._exchange.next(), Read):
                if isinstance(update, Reading):
                    self._now = update
                    self._tell()
            if self._stopped:  # `stop` came after the last step of the job
                raise ApiError(503, "the request was cancelled", "cancelled")
            self._committing = True
            return await self._commit(update)
        finally:
            self._tell()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def when_done(self, then: Callable[[], object]) -> None:
        """Call a function at the end of reading, after success, failure or a stop."""
        self._task.add_done_callback(lambda _: then())

    async def done(self) -> Document:
        """Wait for the end of reading and return the document.

        Raises:
            ApiError: the document could not be read.
        """
        return await asyncio.shield(self._task)

    @property
    def failure(self) -> ApiError | None:
        """The error that ended reading; None if there is none yet or the reader was stopped."""
        error = self._task.exception() if self._task.done() and not self._stopped else None
        if error is None or isinstance(error, ApiError):
            return error
        return ApiError(500, f"the upload failed ({type(error).__name__})", "internal_error")

    async def stop(self) -> None:
        """Stop reading. A commit that has begun is not stopped but awaited."""
        self._stopped = True
        self._exchange.cancel()
        if self._committing:
            await asyncio.wait([self._task])

    def described(self) -> dict[str, Any]:
        """Return the document and the progress of reading as JSON of the API."""
        return self.document.described() | {"status": "reading", **self._progress()}

    def _progress(self) -> dict[str, int]:
        return {"read": self._now.done, "of": self._now.total}

    async def events(self) -> AsyncIterator[bytes]:
        """Yield progress events, then the document or the error."""
        yield comment("accepted")
        while not self._task.done():
            changed = self._changed
            if self._now.total:
                yield event({"object": "document.progress", **self._progress()})
            try:
                await asyncio.wait_for(changed.wait(), PULSE_SECONDS)
            except asyncio.TimeoutError:
                yield comment("waiting")
            await asyncio.sleep(0)  # the last change comes just before the task is done
        try:
            yield event((await self.done()).described())
            yield DONE
        except ApiError as error:
            yield event(error.body())


@dataclass(frozen=True)
class Failure:
    """A document that could not be read in the background.

    Attributes:
        name: id of the document.
        owner: name of the client that uploaded the document.
        document: the document as JSON of the API.
        error: the reason.
    """

    name: str
    owner: str
    document: dict[str, Any]
    error: ApiError

    def body(self) -> dict[str, Any]:
        """Return the failed document as JSON of the API."""
        return self.document | {"status": "failed", **self.error.body()}


class Failures:
    """The latest failures, by document id."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, Failure] = OrderedDict()

    def note(self, reader: Reader) -> None:
        """Record the error of a reader, if there is one."""
        document, error = reader.document, reader.failure
        if error is not None:
            self._known[document.id] = Failure(
                document.id, document.owner, document.described(), error
            )
        while len(self._known) > MAX_FAILURES:
            self._known.popitem(last=False)

    def all(self) -> list[Failure]:
        """Return the recorded failures, the oldest first."""
        return list(self._known.values())

    def get(self, name: str) -> Failure | None:
        """Return the failure of the document with this id; None if there is none."""
        return self._known.get(name)

    def forget(self, name: str) -> bool:
        """Remove the failure of a document; return whether there was one."""
        return self._known.pop(name, None) is not None


def _log_failure(task: asyncio.Task[Document]) -> None:
    """Retrieve the exception of a reader, as asyncio logs a traceback for one that is not."""
    error = None if task.cancelled() else task.exception()
    if error is not None and not isinstance(error, ApiError):
        _log.error("an upload failed", exc_info=error)
