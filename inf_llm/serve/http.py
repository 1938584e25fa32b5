"""The little of HTTP that the server needs, as an ASGI application.

Written out here because two things must be certain: no body is read further than allowed, and a
client that goes away is noticed at once, in the middle of an answer too.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from inf_llm.serve.errors import ApiError

DRAINED = 8
"""A body that is too large is still received, and dropped, up to this many times the limit."""
DRAIN_SECONDS = 10.0
BODY_SECONDS = 120.0
"""A body must have arrived by then."""

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]


@dataclass
class Response:
    """A whole answer."""

    body: bytes
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    type: str = "application/json; charset=utf-8"


@dataclass
class Events:
    """An answer that comes piece by piece, as server-sent events."""

    parts: AsyncIterator[bytes]
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    type: str = "text/event-stream; charset=utf-8"


Reply = Response | Events
Handler = Callable[["Request"], Awaitable[Reply]]


class Request:
    """One request, and whether its client is still there."""

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.client: str = (scope.get("client") or ("unknown", 0))[0]
        self.headers = {
            name.decode("latin-1").lower(): value.decode("latin-1")
            for name, value in scope["headers"]
        }
        self.started = time.perf_counter()
        self._receive = receive
        self._watch: asyncio.Task[None] | None = None
        self._leaving: list[Callable[[], object]] = []

    async def json(self, limit: int) -> dict[str, Any]:
        """The body, which must be a JSON object.

        Raises:
            ApiError: it is too large, of another type, not JSON, or not an object.
        """
        kind = self.headers.get("content-type", "").split(";")[0].strip().lower()
        if kind != "application/json":
            raise ApiError(
                415, f"Content-Type is {kind or 'missing'!r}: application/json is accepted"
            )
        return parse_json(await self.body(limit))

    async def body(self, limit: int) -> bytes:
        """The body, of at most `limit` bytes."""
        declared = self.headers.get("content-length", "")
        if declared.isdigit() and int(declared) > limit:
            await self._drain(limit)
            raise _too_large(limit)
        try:
            return await asyncio.wait_for(self._read(limit), BODY_SECONDS)
        except asyncio.TimeoutError:
            raise ApiError(408, f"the body has not arrived in {BODY_SECONDS:.0f} s") from None

    async def _read(self, limit: int) -> bytes:
        body = bytearray()
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            body += message.get("body", b"")
            if len(body) > limit:
                await self._drain(limit)
                raise _too_large(limit)
            if not message.get("more_body"):
                return bytes(body)

    async def _drain(self, limit: int) -> None:
        """Let the client finish sending, so that it reads our answer."""
        left, until = limit * DRAINED, time.perf_counter() + DRAIN_SECONDS
        while left > 0 and time.perf_counter() < until:
            try:
                message = await asyncio.wait_for(self._receive(), DRAIN_SECONDS)
            except asyncio.TimeoutError:
                return
            left -= len(message.get("body", b""))
            if message["type"] == "http.disconnect" or not message.get("more_body"):
                return

    def at_end(self, action: Callable[[], object]) -> None:
        """Do this when the client goes away, and when the exchange is over; the body is read."""
        self._leaving.append(action)
        if self._watch is None:
            self._watch = asyncio.create_task(self._wait_for_end())

    async def _wait_for_end(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._leave()

    def _leave(self) -> None:
        for action in self._leaving:
            action()
        self._leaving.clear()

    def close(self) -> None:
        """The exchange is over."""
        if self._watch is not None:
            self._watch.cancel()
        self._leave()


class ClientGone(Exception):  # noqa: N818 (nothing went wrong)
    """The client closed the connection."""


def parse_json(body: bytes) -> dict[str, Any]:
    """A JSON object from bytes.

    Raises:
        ApiError: it is not one.
    """
    try:
        value = json.loads(body.decode("utf-8"), parse_constant=_no_constant)
    except UnicodeDecodeError as error:
        raise ApiError(400, f"the body is not UTF-8 (byte {error.start})", "invalid_json") from None
    except RecursionError:
        raise ApiError(400, "the body is nested too deeply", "invalid_json") from None
    except ValueError as error:
        raise ApiError(400, f"the body is not JSON: {error}", "invalid_json") from None
    if not isinstance(value, dict):
        raise ApiError(400, "the body must be a JSON object, as {...}", "invalid_json")
    return value


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def _too_large(limit: int) -> ApiError:
    return ApiError(
        413, f"the request has more than {limit:,} bytes, which is the limit", "request_too_large"
    )


def json_response(
    value: Any, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """A value as JSON."""
    return Response(json_line(value), status, dict(headers or {}))


def event(value: Any) -> bytes:
    """A value as one server-sent event."""
    return b"data: " + json_line(value) + b"\n\n"


def json_line(value: Any) -> bytes:
    """A value as JSON in UTF-8, on one line for every reader.

    Line separators other than "\\n" are allowed in JSON, but clients that split a stream into lines
    as Python's `splitlines` does would cut an event there. JSON escapes those below U+0020 itself.
    """
    text = json.dumps(value, ensure_ascii=False)
    for separator in "\x85\u2028\u2029":
        text = text.replace(separator, f"\\u{ord(separator):04x}")
    return text.encode("utf-8", "replace")


def comment(text: str) -> bytes:
    """A line of an event stream that clients skip; it keeps the connection alive."""
    return f": {text}\n\n".encode()


async def send_reply(send: Send, reply: Reply, headers: Mapping[str, str]) -> None:
    """Send an answer, with headers that all answers have."""
    own = {**headers, **reply.headers, "content-type": reply.type}
    if isinstance(reply, Response):
        own["content-length"] = str(len(reply.body))
    else:
        own["cache-control"] = "no-store"
    rows = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in own.items()]
    await send({"type": "http.response.start", "status": reply.status, "headers": rows})
    last = b""
    if isinstance(reply, Events):
        async for part in reply.parts:
            await send({"type": "http.response.body", "body": part, "more_body": True})
    else:
        last = reply.body
    await send({"type": "http.response.body", "body": last})
