"""Texts that are being read: each by one job, with any number of clients that watch."""

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
MOST_FAILURES = 256


class Reader:
    """One text on its way to a document.

    Args:
        document: of which at least the id and the text are known.
        exchange: with the job that reads it.
        commit: makes it a document that can be asked about.
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
            if self._stopped:  # between the last step and this
                raise ApiError(503, "the request was cancelled", "cancelled")
            self._committing = True
            return await self._commit(update)
        finally:
            self._tell()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def when_done(self, then: Callable[[], object]) -> None:
        """Call a function at the end, whatever that is."""
        self._task.add_done_callback(lambda _: then())

    async def done(self) -> Document:
        """The document, once it is read.

        Raises:
            ApiError: it could not be.
        """
        return await asyncio.shield(self._task)

    @property
    def failure(self) -> ApiError | None:
        """Why there will be no document; None where it was stopped, or there may be one."""
        error = self._task.exception() if self._task.done() and not self._stopped else None
        if error is None or isinstance(error, ApiError):
            return error
        return ApiError(500, f"the upload failed ({type(error).__name__})", "internal_error")

    async def stop(self) -> None:
        """Stop reading. What is read already and on its way to a document is one at the end."""
        self._stopped = True
        self._exchange.cancel()
        if self._committing:
            await asyncio.wait([self._task])

    def described(self) -> dict[str, Any]:
        """The form of the API, while it is read."""
        return self.document.described() | {"status": "reading", **self._progress()}

    def _progress(self) -> dict[str, int]:
        return {"read": self._now.done, "of": self._now.total}

    async def events(self) -> AsyncIterator[bytes]:
        """Progress from now on, then the document or the error."""
        yield comment("accepted")
        while not self._task.done():
            changed = self._changed
            if self._now.total:
                yield event({"object": "document.progress", **self._progress()})
            try:
                await asyncio.wait_for(changed.wait(), PULSE_SECONDS)
            except asyncio.TimeoutError:
                yield comment("waiting")
            await asyncio.sleep(0)  # at the end the task is done a moment later
        try:
            yield event((await self.done()).described())
            yield DONE
        except ApiError as error:
            yield event(error.body())


@dataclass(frozen=True)
class Failure:
    """A text that could not be read, for a client that did not wait.

    Attributes:
        name: of the document.
        owner: the client.
        document: in the form of the API.
        error: why.
    """

    name: str
    owner: str
    document: dict[str, Any]
    error: ApiError

    def body(self) -> dict[str, Any]:
        """The form of the API."""
        return self.document | {"status": "failed", **self.error.body()}


class Failures:
    """The failures of late, by document."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, Failure] = OrderedDict()

    def note(self, reader: Reader) -> None:
        """Remember why a text was not read, if it was not."""
        document, error = reader.document, reader.failure
        if error is not None:
            self._known[document.id] = Failure(
                document.id, document.owner, document.described(), error
            )
        while len(self._known) > MOST_FAILURES:
            self._known.popitem(last=False)

    def all(self) -> list[Failure]:
        """Those that are remembered, the oldest first."""
        return list(self._known.values())

    def get(self, name: str) -> Failure | None:
        """That of a document."""
        return self._known.get(name)

    def forget(self, name: str) -> bool:
        """Forget that of a document; whether there was one."""
        return self._known.pop(name, None) is not None


def _log_failure(task: asyncio.Task[Document]) -> None:
    """Take the failure of a text that no client waits for; asyncio would log a traceback."""
    error = None if task.cancelled() else task.exception()
    if error is not None and not isinstance(error, ApiError):
        _log.error("an upload failed", exc_info=error)
