"""The routes of the server, as an ASGI application.

GET  /                        the chat page
GET  /page/VERSION/NAME       scripts, styles and pictures of the chat page
GET  /health                  whether the model's thread runs; needs no key
GET  /metrics                 metrics for Prometheus
GET  /v1/models[/NAME]        the one model
POST /v1/chat/completions     OpenAI's chats, with more parameters: document, documents, recall
POST /v1/completions          the same for prompts without chat messages
POST /v1/responses            OpenAI's Responses API
POST /tokenize                the token ids of a prompt
POST /detokenize              the text of token ids
POST /v1/documents            upload a text and read it
GET  /v1/documents            the client's documents
GET, DELETE /v1/documents/ID  the state of a document; delete the document
POST /v1/documents/ID         append a text to a document
GET  /v1/documents/ID/events  progress of reading
GET  /v1/documents/ID/text    characters of the text
"""

from __future__ import annotations

import hmac
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route

from inf_llm.serve import completions
from inf_llm.serve.admission import Admission, entered
from inf_llm.serve.document_routes import DocumentRoutes
from inf_llm.serve.errors import ApiError
from inf_llm.serve.guard import Guard
from inf_llm.serve.intake import Intake
from inf_llm.serve.jobs import Engine
from inf_llm.serve.metrics import Metrics
from inf_llm.serve.origins import CUT_HEADER, Origins
from inf_llm.serve.page import Page
from inf_llm.serve.params import Question, chat_question, completion_question
from inf_llm.serve.response_form import ResponseForm
from inf_llm.serve.response_question import response_question
from inf_llm.serve.token_routes import TokenRoutes
from inf_llm.serve.wire import Events, Json, json_object, refusal
from inf_llm.serve.worker import Job, Worker

Endpoint = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True)
class Limits:
    """Limits and settings of the server towards its clients.

    Attributes:
        model: name of the model.
        api_key: key that clients must send; None for no key.
        request_bytes: most bytes of a request body.
        local: whether only this computer can reach the server; then only local host names are
            accepted, against DNS rebinding by web pages in a browser.
        characters: most characters of all documents together.
        share: most requests of one client that wait or are being answered.
        thinks: whether the chat template has a switch for reasoning, which requests cannot set.
        hosts: host names that are accepted beside the local ones.
        origins: origins whose web pages may send requests.
        home: name of the server among several, which the ids of its documents contain.
    """

    model: str
    api_key: str | None = None
    request_bytes: int = 16 << 20
    local: bool = True
    characters: int = 64 << 20
    share: int = 64
    thinks: bool = False
    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    home: str = ""


class Application(Starlette):
    """The ASGI application with all routes.

    Args:
        engine: makes the jobs; it runs in the worker's thread only.
        intake: makes and checks prompts.
        worker: runs the jobs.
        limits: limits and settings.
    """

    def __init__(self, engine: Engine, intake: Intake, worker: Worker, limits: Limits) -> None:
        self.engine, self.intake, self.worker, self.limits = engine, intake, worker, limits
        self.admission = Admission.of(limits.share, limits.request_bytes)
        self.documents = DocumentRoutes(
            engine,
            intake,
            limits.characters,
            limits.request_bytes,
            self._exchange,
            worker,
            limits.home,
        )
        self.tokens = TokenRoutes(intake, limits.request_bytes, self._check_model)
        self.created = int(time.time())
        self.page = Page()
        self.metrics = Metrics(
            {
                "memory_bytes": ("Bytes of memories kept and in use.", lambda: engine.pool.bytes),
                "memory_budget_bytes": (
                    "Bytes that these may take.",
                    lambda: engine.pool.budget or 0,
                ),
                "body_bytes": ("Bytes of bodies held.", lambda: self.admission.bytes),
                "memories": ("Memories kept between requests.", lambda: len(engine.pool)),
                "memories_evicted_total": ("Memories let go.", lambda: engine.pool.evicted),
                "documents": ("Documents held.", lambda: len(self.documents.held)),
                "saved_bytes": ("Bytes of memories on the disk.", lambda: _saved_bytes(engine)),
                "jobs_waiting": ("Jobs that wait for the model.", lambda: worker.waiting),
                "jobs_running": ("Jobs that run.", lambda: worker.running),
                "waiting_tokens": (
                    "Tokens of prompts that are not read yet.",
                    lambda: worker.waiting_tokens,
                ),
                "memory_usage_ratio": (
                    "Part of the memory budget that is taken.",
                    lambda: engine.pool.bytes / (engine.pool.budget or 1),
                ),
                "cancelled_total": ("Jobs whose client left.", lambda: worker.cancelled),
            }
        )
        routes = self._routes()
        paths = {route.endpoint: route.path for route in routes}
        super().__init__(
            routes=routes,
            middleware=[
                Middleware(
                    Guard,
                    local=limits.local,
                    hosts=limits.hosts,
                    metrics=self.metrics,
                    paths=paths,
                    admission=self.admission,
                ),
                Middleware(Origins, origins=limits.origins),
            ],
            exception_handlers={ApiError: _refused, HTTPException: _not_here},
        )
        self.router.redirect_slashes = False

    def start(self) -> None:
        """Start the worker."""
        self.worker.start()

    def stop(self, seconds: float) -> bool:
        """Cancel all jobs; return whether they ended within `seconds`."""
        return self.worker.stop(seconds)

    def close(self) -> None:
        """Release the folder of documents and memories, after all jobs have ended."""
        if self.engine.library is not None:
            self.engine.library.close()

    def _routes(self) -> list[Route]:
        keyed, documents, tokens = self._keyed, self.documents, self.tokens
        return [
            Route("/", self.page.start),
            Route("/page/{version}/{name:path}", self.page.file),
            Route("/health", self._health),
            Route("/metrics", keyed(self._read_metrics)),
            Route("/v1/models", keyed(self._models)),
            Route("/v1/models/{name:path}", keyed(self._model)),
            Route("/v1/chat/completions", keyed(self._chat), methods=["POST"]),
            Route("/v1/completions", keyed(self._complete), methods=["POST"]),
            Route("/v1/responses", keyed(self._respond), methods=["POST"]),
            Route("/tokenize", keyed(tokens.tokenize), methods=["POST"]),
            Route("/detokenize", keyed(tokens.detokenize), methods=["POST"]),
            Route("/v1/documents", keyed(documents.all), methods=["GET", "POST"]),
            Route("/v1/documents/{id}", keyed(documents.one), methods=["GET", "DELETE", "POST"]),
            Route("/v1/documents/{id}/events", keyed(documents.events)),
            Route("/v1/documents/{id}/text", keyed(documents.text)),
        ]

    def _keyed(self, endpoint: Endpoint) -> Endpoint:
        """Wrap an endpoint so that it requires the API key, if there is one."""

        async def checked(request: Request) -> Response:
            kind, _, given = request.headers.get("authorization", "").partition(" ")
            key = self.limits.api_key
            right = key is None or hmac.compare_digest(given.strip().encode(), key.encode())
            if not right or (key is not None and kind.lower() != "bearer"):
                raise ApiError(
                    401,
                    "a valid API key is needed: send the header 'Authorization: Bearer KEY'",
                    "invalid_api_key",
                    headers={"WWW-Authenticate": "Bearer"},
                )
            return await endpoint(request)

        return checked

    async def _health(self, request: Request) -> Response:
        alive = self.worker.alive
        body = {"status": "ok" if alive else "failed", "model": self.limits.model}
        return Json(body | {"waiting": self.worker.waiting}, 200 if alive else 503)

    async def _read_metrics(self, request: Request) -> Response:
        return Response(self.metrics.text(), media_type=self.metrics.media_type)

    async def _models(self, request: Request) -> Response:
        return Json({"object": "list", "data": [self._described()]})

    async def _model(self, request: Request) -> Response:
        name = request.path_params["name"]
        if not name:
            return await self._models(request)
        self._check_model(name)
        return Json(self._described())

    def _described(self) -> dict[str, Any]:
        return {
            "id": self.limits.model,
            "object": "model",
            "created": self.created,
            "owned_by": "inf-llm",
            "attention": self.engine.config.attention.type,
            **dict.fromkeys(("max_model_len", "context_length"), self.intake.most_tokens),
        }

    def _check_model(self, name: str) -> None:
        if name != self.limits.model:
            raise ApiError(
                404,
                f"the model {name[:80]!r} does not exist here; {self.limits.model!r} does",
                "model_not_found",
                "model",
            )

    async def _json(self, request: Request) -> dict[str, Any]:
        return await json_object(request, self.limits.request_bytes)

    async def _chat(self, request: Request) -> Response:
        question = chat_question(await self._json(request), self.limits.thinks)
        return await self._ask(request, question, completions.ChatForm(self.limits.model))

    async def _complete(self, request: Request) -> Response:
        question = completion_question(await self._json(request))
        return await self._ask(request, question, completions.TextForm(self.limits.model))

    async def _respond(self, request: Request) -> Response:
        body = await self._json(request)
        question = response_question(body, self.limits.thinks)
        return await self._ask(request, question, ResponseForm(self.limits.model, body))

    def _exchange(
        self, request: Request, client: str, work: Callable[[Job], Any], *more: Any
    ) -> completions.Exchange:
        return completions.Exchange(request, client, self.worker, self.metrics, work, *more)

    async def _ask(
        self, request: Request, question: Question, reply: completions.Reply
    ) -> Response:
        self._check_model(question.model)
        sources = self.documents.sources(question.documents)
        client = entered(request)
        ready = await self.intake.question(client, question, sources)
        exchange = self._exchange(
            request,
            client,
            lambda job: self.engine.answer(question, sources, ready, job),
            False,
            sum(len(each.prompt.ids) for each in ready),
        )
        left_out = sum(each.cut for each in ready)
        headers = {CUT_HEADER: str(left_out)} if left_out else {}
        if question.stream:
            return Events(reply.stream(exchange, question), headers=headers)
        return Json(reply.whole(await exchange.result()), headers=headers)


def _saved_bytes(engine: Engine) -> int:
    return 0 if engine.library is None else engine.library.disk_cache.bytes


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return refusal(error)


async def _not_here(request: Request, error: Exception) -> Response:
    """Respond to an unknown path, or to a method that the path does not have."""
    assert isinstance(error, HTTPException)
    if error.status_code != 405:
        return refusal(ApiError(404, _no_such_path(request), "not_found"))
    allowed = sorted({*(error.headers or {})["Allow"].split(", ")} - {"HEAD"})
    message = f"{request.method} is not accepted here, but {', '.join(allowed)}"
    return refusal(ApiError(405, message, "bad_method", headers={"Allow": ", ".join(allowed)}))


def _no_such_path(request: Request) -> str:
    """Return an error message for an unknown path, with the path that was probably meant."""
    path = request.scope["path"]
    plain = re.sub("/+", "/", path).rstrip("/")
    reason = _ABSENT.get(plain, f"there is no {path[:80]!r} here")
    scope = {**request.scope, "path": plain}
    if plain != path and any(r.matches(scope)[0] != Match.NONE for r in request.app.routes):
        reason += f": write {plain[:80]!r}, without doubled slashes or one at the end"
    return reason


_ABSENT = {
    "/v1/embeddings": "there are no embeddings here: the model answers, and recalls passages of "
    "texts itself; upload them to /v1/documents"
}
"""Routes of other servers that clients ask for, with the reason for their absence."""
