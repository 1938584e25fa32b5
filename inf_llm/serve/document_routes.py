"""The routes of documents: upload, append, list, state, text, progress, delete."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress

from starlette.requests import Request
from starlette.responses import Response

from inf_llm.serve.admission import claim_of, client_of, entered
from inf_llm.serve.completions import Exchange
from inf_llm.serve.documents import (
    MAX_DOCUMENTS,
    Document,
    Documents,
    Sources,
    Upload,
    changed,
    uploaded,
)
from inf_llm.serve.errors import ApiError
from inf_llm.serve.excerpts import excerpt
from inf_llm.serve.intake import Intake
from inf_llm.serve.jobs import Engine, Read
from inf_llm.serve.library import Library
from inf_llm.serve.uploads import Failures, Reader
from inf_llm.serve.wire import DONE, Events, Json, event, json_object
from inf_llm.serve.worker import Job, Worker

_log = logging.getLogger("inf_llm.serve")
Exchanges = Callable[..., Exchange]
"""Makes an exchange from a request, its client's name, the work of a job, whether the job continues
without the client, and the number of tokens that the job reads."""

_SAME_START = 200
"""Characters at the start of a text; texts that contain them may share memories."""


class DocumentRoutes:
    """The routes of documents.

    Args:
        engine: makes the jobs that read and forget documents.
        intake: makes and checks prompts.
        characters: most characters of all documents together.
        request_bytes: most bytes of a request body.
        exchange: see `Exchanges`.
        worker: runs the jobs that forget documents.
        home: name of this server among several, which the ids of its documents contain.
    """

    def __init__(
        self,
        engine: Engine,
        intake: Intake,
        characters: int,
        request_bytes: int,
        exchange: Exchanges,
        worker: Worker,
        home: str = "",
    ) -> None:
        self._engine, self._intake, self._home = engine, intake, home
        self._request_bytes = request_bytes
        self._exchange, self._worker = exchange, worker
        self._readers: dict[str, Reader] = {}
        self._failed = Failures()
        self.held = Documents(characters)
        self._take_over()

    def _take_over(self) -> None:
        """Load the documents of earlier processes, as far as there is room."""
        library, left = self._engine.library, list[Document]()
        for document in library.documents() if library else ():
            left += self.held.add(document)
        if left:
            _log.warning(
                "--memory-dir: %d documents of %d characters are not held, for there is room for "
                "%d documents of %d characters (four times --max-request-bytes). They stay on the "
                "disk for a server with more room, or until they are deleted: %s",
                len(left),
                sum(len(document.text) for document in left),
                MAX_DOCUMENTS,
                self.held.room,
                ", ".join(document.id for document in left),
            )

    def sources(self, names: Sequence[str]) -> Sources:
        """Return the documents of a question.

        Raises:
            ApiError: a document does not exist, is still being read, or could not be read.
        """
        for name in names:
            self._check_not_read(name)
            self._check_not_failed(name)
            self._catch_up(name)
        return Sources(tuple(map(self.held.get, names)))

    def _named(self, request: Request) -> str:
        name: str = request.path_params["id"]
        self._catch_up(name)
        return name

    def _catch_up(self, name: str) -> None:
        """Update a held document from the disk, where other servers may have changed it."""
        library = self._engine.library
        if library is None or not library.shared or name in self._readers:
            return
        held = self.held.get(name) if name in self.held else None
        now = library.current(name, held)
        if now is None and held is not None:
            self.held.remove(name)
        elif now is not None and now is not held:
            self.held.add(now)

    def _catch_up_all(self) -> None:
        library = self._engine.library
        if library is not None and library.shared:
            for name in library.names()[-MAX_DOCUMENTS:]:
                self._catch_up(name)
            for document in self.held.all():
                self._catch_up(document.id)

    def _check_not_read(self, name: str) -> None:
        if name in self._readers:
            raise ApiError(
                409,
                f"the document {name!r} is being read: GET /v1/documents/{name}/events tells when "
                "it can be asked about",
                "document_not_ready",
                "document",
                {"Retry-After": "1"},
            )

    def _check_not_failed(self, name: str) -> None:
        failed = self._failed.get(name)
        if failed is not None and name not in self.held:
            raise ApiError(
                409,
                f"the document {name!r} could not be read ({failed.error.message}): upload it "
                "again",
                "document_failed",
                "document",
            )

    async def all(self, request: Request) -> Response:
        """List the client's documents (GET) or upload a document (POST)."""
        if request.method != "POST":  # HEAD is handled as GET
            return self._list(client_of(request.scope))
        wanted = uploaded(await json_object(request, self._request_bytes))
        client = entered(request)
        content = await self._intake.content(client, wanted)
        document = Document.of(content, wanted.name, client, self._home)
        return await self._read(request, client, document, wanted)

    def _list(self, owner: str) -> Response:
        self._catch_up_all()
        reading = [reader for reader in self._readers.values() if reader.document.owner == owner]
        names = {reader.document.id for reader in reading}
        failed = [
            each.body()
            for each in self._failed.all()
            if each.owner == owner and each.name not in self.held
        ]
        ready = [each for each in self.held.all() if each.owner == owner and each.id not in names]
        found = [each.described() for each in ready] + [each.described() for each in reading]
        return Json({"object": "list", "data": found + failed})

    async def one(self, request: Request) -> Response:
        """Return a document's state (GET), delete it (DELETE), or append a text to it (POST)."""
        name = self._named(request)
        if request.method == "DELETE":
            return await self._remove(name)
        if request.method == "POST":
            wanted = uploaded(await json_object(request, self._request_bytes))
            self._check_not_read(name)
            self._check_not_failed(name)
            client = entered(request)
            content = await self._intake.content(client, wanted)
            base = self.held.get(name)
            return await self._read(request, client, base.with_more(content), wanted, base)
        reader, failed = self._readers.get(name), self._failed.get(name)
        if reader is not None:
            return Json(reader.described())
        if failed is not None and name not in self.held:
            return Json(failed.body())
        reading_on = {} if failed is None else failed.error.body()
        return Json(self.held.get(name).described() | reading_on)

    async def events(self, request: Request) -> Response:
        """Stream the progress of reading until the document is ready."""
        name = self._named(request)
        reader, failed = self._readers.get(name), self._failed.get(name)
        if reader is not None:
            return Events(reader.events())
        if failed is not None:
            return Events(iter([event(failed.error.body())]))
        return Events(iter([event(self.held.get(name).described()), DONE]))

    async def text(self, request: Request) -> Response:
        """Return characters of a document's text; the document may still be in reading."""
        name = self._named(request)
        reader = self._readers.get(name)
        document = self.held.get(name) if reader is None else reader.document
        return Json(excerpt(document, request.query_params))

    async def _read(
        self,
        request: Request,
        client: str,
        document: Document,
        wanted: Upload,
        base: Document | None = None,
    ) -> Response:
        """Read a document, or `document` as `base` with a text appended."""
        ready = await self._intake.document(client, document)
        self._check_not_read(document.id)  # another request may have begun to read it meanwhile
        if base is not None and self.held.get(base.id) is not base:
            raise changed(base.id)
        exchange = self._exchange(
            request,
            client,
            lambda job: self._engine.read(document, ready, job),
            wanted.background,
            len(ready.prompt.ids),
        )
        reader = self._readers[document.id] = Reader(document, exchange, self._commit)
        self._failed.forget(document.id)
        reader.when_done(lambda: self._readers.pop(document.id, None))
        if wanted.background:
            reader.when_done(lambda: self._failed.note(reader))
            claim = claim_of(request.scope)
            claim.stays = True
            reader.when_done(claim.end)
            return Json(reader.described(), 202)
        if wanted.stream:
            return Events(reader.events())
        return Json((await reader.done()).described(), 201)

    async def _commit(self, read: Read) -> Document:
        document, library = read.document, self._engine.library
        if library is not None and read.memory is not None:
            await library.keep(document, read.memory)
        for left in self.held.add(document):
            if library is not None and not library.shared:
                await library.remove(left.id)
        return document

    async def _remove(self, name: str) -> Response:
        reader = self._readers.get(name)
        if reader is not None:
            await reader.stop()
        failed, library = self._failed.forget(name), self._engine.library
        if name not in self.held and library is not None and name in library:
            await self._remove_from_disk(library, name)
        elif name in self.held or (reader is None and not failed):
            await self._forget(self.held.remove(name))
        return Json({"id": name, "object": "document", "deleted": True})

    async def _forget(self, document: Document) -> None:
        library = self._engine.library
        if library is not None:
            try:
                await self._remove_from_disk(library, document.id)
            except ApiError:
                self.held.add(document)
                raise
        await self._forget_memories(document)

    @staticmethod
    async def _remove_from_disk(library: Library, name: str) -> None:
        if not await library.remove(name):
            raise ApiError(
                500,
                f"the document {name!r} cannot be removed from the disk: the server's log says "
                "why; try again",
                "not_removed",
            )

    async def _forget_memories(self, document: Document) -> None:
        """Drop the memories of a document that was removed."""
        start = document.core[:_SAME_START]
        like = [each for each in self.held.all() if start in each.core]
        with suppress(ApiError):  # the document was never read, or the server is stopping
            intake, client = self._intake, document.owner
            prompt = (await intake.document(client, document)).prompt
            others = [(await intake.document(client, each)).prompt for each in like]
            job = Job(
                document.owner,
                lambda job: self._engine.forget(prompt, others),
                lambda result: None,
            )
            self._worker.submit(job, always=True)
