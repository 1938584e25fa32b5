"""The routes, as an ASGI application: who may ask what, and how it is answered.

GET  /                        the chat page
GET  /health                  whether the model's thread lives; needs no key
GET  /metrics                 for Prometheus
GET  /v1/models[/NAME]        the one model
POST /v1/chat/completions     OpenAI's, and two parameters more: document, recall
POST /v1/completions          likewise
POST /v1/documents            upload a text and have it read
GET, DELETE /v1/documents/ID  what is known of it; forget it
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import logging
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inf_llm.serve import completions
from inf_llm.serve.documents import Documents, uploaded
from inf_llm.serve.errors import ApiError
from inf_llm.serve.http import (
    ClientGone,
    Events,
    Handler,
    Receive,
    Reply,
    Request,
    Response,
    Scope,
    Send,
    json_response,
    send_reply,
)
from inf_llm.serve.jobs import Engine
from inf_llm.serve.metrics import Metrics
from inf_llm.serve.params import Question, chat_question, completion_question
from inf_llm.serve.worker import Worker

PAGE = Path(__file__).parent.parent / "assets" / "chat.html"
_LOCAL_HOSTS = ("localhost", "127.0.0.1", "[::1]")
_COMMON_HEADERS = {"x-content-type-options": "nosniff", "referrer-policy": "no-referrer"}
_log = logging.getLogger("inf_llm.serve")


@dataclass(frozen=True)
class Limits:
    """What the server lets its clients do.

    Attributes:
        model: the name of the model that it serves.
        api_key: what they must show, or None.
        request_bytes: largest body.
        local: whether only this computer can reach it; then names of other hosts are refused,
            under which a page in a browser could have come.
        characters: most characters of documents that are held.
        thinks: whether the chat template has a switch for reasoning, which requests cannot set.
    """

    model: str
    api_key: str | None = None
    request_bytes: int = 16 << 20
    local: bool = True
    characters: int = 64 << 20
    thinks: bool = False


class Application:
    """The server's answers. `engine` runs in the worker's thread only."""

    def __init__(self, engine: Engine, worker: Worker, metrics: Metrics, limits: Limits) -> None:
        self.engine, self.worker, self.metrics, self.limits = engine, worker, metrics, limits
        self.documents = Documents(limits.characters)
        self.created = int(time.time())
        self._page = page_response()
        self._routes: list[tuple[str, re.Pattern[str], Handler]] = [
            ("GET", re.compile("/"), self._show_page),
            ("GET", re.compile("/health"), self._health),
            ("GET", re.compile("/metrics"), self._metrics),
            ("GET", re.compile("/v1/models"), self._models),
            ("GET", re.compile("/v1/models/.+"), self._model),
            ("POST", re.compile("/v1/chat/completions"), self._chat),
            ("POST", re.compile("/v1/completions"), self._complete),
            ("POST", re.compile("/v1/documents"), self._upload),
            ("GET", re.compile("/v1/documents/[^/]+"), self._document),
            ("DELETE", re.compile("/v1/documents/[^/]+"), self._forget),
        ]
        metrics.gauge("memory_bytes", "Bytes of memories kept between requests.", self._kept_bytes)
        metrics.gauge("memories", "Memories kept between requests.", lambda: len(engine.pool))
        metrics.counter(
            "memories_evicted_total", "Memories let go to make room.", lambda: engine.pool.evicted
        )
        metrics.gauge("documents", "Documents held.", lambda: len(self.documents))
        metrics.gauge("jobs_waiting", "Jobs that wait for the model.", lambda: worker.waiting)
        metrics.gauge("jobs_running", "Jobs that run.", lambda: worker.running)

    def _kept_bytes(self) -> float:
        return self.engine.pool.bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI's entry; see its specification."""
        if scope["type"] != "http":
            return
        request = Request(scope, receive)
        try:
            reply, route = await self._answer(request)
            self.metrics.count(
                "requests_total", labels=f'{{route="{route}",status="{reply.status}"}}'
            )
            await send_reply(send, reply, _COMMON_HEADERS)
        except ClientGone:
            pass
        finally:
            request.close()

    async def _answer(self, request: Request) -> tuple[Reply, str]:
        """The answer, and the route for the metrics."""
        route = "none"
        try:
            self._check_host(request)
            handler, route = self._route(request)
            if route not in ("/", "/health"):
                self._check_key(request)
            return await handler(request), route
        except ApiError as error:
            headers = {"WWW-Authenticate": "Bearer"} if error.status == 401 else {}
            return json_response(error.body(), error.status, headers), route
        except (ClientGone, asyncio.CancelledError):
            raise
        except Exception:
            _log.exception("%s %s failed", request.method, route)
            failure = ApiError(500, "the request failed", "internal_error")
            return json_response(failure.body(), 500), route

    def _route(self, request: Request) -> tuple[Handler, str]:
        found = [row for row in self._routes if row[1].fullmatch(request.path)]
        if not found:
            raise ApiError(404, f"there is no {request.path[:80]!r} here", "not_found")
        for method, pattern, handler in found:
            if request.method == method or (request.method == "HEAD" and method == "GET"):
                return handler, re.sub(r"\W*[.+\[].*", "/*", pattern.pattern)
        accepted = ", ".join(method for method, _, _ in found)
        raise ApiError(405, f"{request.method} is not accepted here, but {accepted}", "bad_method")

    def _check_host(self, request: Request) -> None:
        host = re.sub(r":\d*$", "", request.headers.get("host", ""))
        if self.limits.local and host.lower() not in _LOCAL_HOSTS:
            raise ApiError(
                403,
                f"Host is {host[:80]!r}: a server on a local address answers only to "
                f"{', '.join(_LOCAL_HOSTS)}",
                "bad_host",
            )

    def _check_key(self, request: Request) -> None:
        if self.limits.api_key is None:
            return
        kind, _, given = request.headers.get("authorization", "").partition(" ")
        right = hmac.compare_digest(given.strip().encode(), self.limits.api_key.encode())
        if kind.lower() != "bearer" or not right:
            raise ApiError(
                401,
                "a valid API key is needed: send the header 'Authorization: Bearer KEY'",
                "invalid_api_key",
            )

    async def _show_page(self, request: Request) -> Reply:
        return self._page

    async def _health(self, request: Request) -> Reply:
        alive = self.worker.alive
        body = {"status": "ok" if alive else "failed", "model": self.limits.model}
        return json_response(body | {"waiting": self.worker.waiting}, 200 if alive else 503)

    async def _metrics(self, request: Request) -> Reply:
        body = self.metrics.text().encode()
        return Response(body, type="text/plain; version=0.0.4; charset=utf-8")

    async def _models(self, request: Request) -> Reply:
        return json_response({"object": "list", "data": [self._described()]})

    async def _model(self, request: Request) -> Reply:
        self._check_model(request.path.removeprefix("/v1/models/"))
        return json_response(self._described())

    def _described(self) -> dict[str, Any]:
        return {
            "id": self.limits.model,
            "object": "model",
            "created": self.created,
            "owned_by": "inf-llm",
            "attention": self.engine.config.attention.type,
        }

    def _check_model(self, name: str) -> None:
        if name != self.limits.model:
            raise ApiError(
                404,
                f"the model {name[:80]!r} does not exist here; {self.limits.model!r} does",
                "model_not_found",
                "model",
            )

    async def _chat(self, request: Request) -> Reply:
        question = chat_question(await request.json(self.limits.request_bytes), self.limits.thinks)
        return await self._ask(request, question, completions.ChatForm)

    async def _complete(self, request: Request) -> Reply:
        question = completion_question(await request.json(self.limits.request_bytes))
        return await self._ask(request, question, completions.TextForm)

    async def _ask(
        self, request: Request, question: Question, form: type[completions.Form]
    ) -> Reply:
        self._check_model(question.model)
        document = self.documents.get(question.document) if question.document else None
        exchange = completions.Exchange(
            request,
            self.worker,
            self.metrics,
            lambda job: self.engine.answer(question, document, job),
        )
        shape = form(self.limits.model)
        begun = await exchange.told()
        headers = {"x-inf-llm-cut-tokens": str(begun.cut)} if begun.cut else {}
        if question.stream:
            return Events(completions.stream_answer(exchange, shape, question), headers=headers)
        return json_response(shape.whole(await exchange.result()), headers=headers)

    async def _upload(self, request: Request) -> Reply:
        document, stream = uploaded(await request.json(self.limits.request_bytes))
        exchange = completions.Exchange(
            request, self.worker, self.metrics, lambda job: self.engine.read(document, job)
        )
        if stream:
            first = await exchange.told()
            return Events(completions.stream_reading(exchange, first, self.documents.add))
        self.documents.add(await exchange.result())
        return json_response(document.described(), 201)

    async def _document(self, request: Request) -> Reply:
        return json_response(self.documents.get(_last(request)).described())

    async def _forget(self, request: Request) -> Reply:
        self.documents.remove(_last(request))
        return json_response({"id": _last(request), "object": "document", "deleted": True})


def _last(request: Request) -> str:
    return request.path.rpartition("/")[2]


def page_response() -> Response:
    """The chat page, with a policy that lets it run its own script and talk to this server only."""
    page = PAGE.read_bytes()
    headers = {
        "content-security-policy": "; ".join(
            f"{what} {sources}" for what, sources in _policy(page).items()
        ),
        "cross-origin-opener-policy": "same-origin",
        "x-frame-options": "DENY",
        "cache-control": "no-cache",
    }
    return Response(page, headers=headers, type="text/html; charset=utf-8")


def _policy(page: bytes) -> Mapping[str, str]:
    def hashes(tag: bytes) -> str:
        found = re.findall(b"<" + tag + b">(.*?)</" + tag + b">", page, re.DOTALL)
        digests = [base64.b64encode(hashlib.sha256(text).digest()).decode() for text in found]
        return " ".join(f"'sha256-{digest}'" for digest in digests)

    return {
        "default-src": "'none'",
        "script-src": hashes(b"script"),
        "style-src": hashes(b"style"),
        "connect-src": "'self'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
