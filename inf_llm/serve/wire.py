"""JSON and bytes: request bodies of bounded size, JSON on one line, and server-sent events."""

from __future__ import annotations

import asyncio
import json
import math
import sys
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse

from inf_llm.serve.admission import claim_of
from inf_llm.serve.errors import ApiError

DRAINED = 8
"""The server receives and drops a too large body up to this many times the limit, so that the
client reads the error."""
DRAIN_SECONDS, BODY_SECONDS = 10.0, 120.0
"""Most seconds to receive a body whose Content-Length is too large, and any other body."""


class Json(JSONResponse):
    """A JSON response."""

    media_type = "application/json; charset=utf-8"

    def render(self, content: Any) -> bytes:
        """See `Response`."""
        return json_line(content)


class Events(StreamingResponse):
    """A response of server-sent events."""

    media_type = "text/event-stream"

    def init_headers(self, headers: Mapping[str, str] | None = None) -> None:
        """See `Response`."""
        super().init_headers({**(headers or {}), "cache-control": "no-store"})


def refusal(error: ApiError) -> Json:
    """Make the response for an error."""
    return Json(error.body(), error.status, error.headers)


def event(value: Any) -> bytes:
    """Encode a value as one server-sent event."""
    return b"data: " + json_line(value) + b"\n\n"


def named_event(name: str, value: Any) -> bytes:
    """Encode a value as one server-sent event with a name."""
    return f"event: {name}\n".encode() + event(value)


DONE = b"data: [DONE]\n\n"
"""The last event of a stream."""


def comment(text: str) -> bytes:
    """Encode a comment of an event stream; clients ignore it, and it keeps the connection alive."""
    return f": {text}\n\n".encode()


def json_line(value: Any) -> bytes:
    """Encode a value as JSON in UTF-8, on one line by every definition of a line.

    JSON allows line separators other than "\\n" in a text, but a client that splits a stream into
    lines as Python's `splitlines` does would cut an event there. So these are escaped; JSON itself
    escapes those below U+0020.
    """
    text = json.dumps(value, ensure_ascii=False)
    for separator in "\x85\u2028\u2029":
        text = text.replace(separator, f"\\u{ord(separator):04x}")
    return text.encode("utf-8", "replace")


async def json_object(request: Request, limit: int) -> dict[str, Any]:
    """Receive the body of a request, which must be a JSON object of at most `limit` bytes.

    Raises:
        ApiError: the body is too large, too slow, of another type, not JSON, or not an object.
    """
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind != "application/json":
        raise ApiError(415, f"Content-Type is {kind or 'missing'!r}: application/json is accepted")
    return _parsed(await whole_body(request, limit))


async def whole_body(request: Request, limit: int) -> bytes:
    """Receive the body of a request, of at most `limit` bytes.

    Raises:
        ApiError: the body is too large or too slow.
    """
    declared = request.headers.get("content-length", "")
    too_large = declared.isdecimal() and int(declared) > limit
    seconds = DRAIN_SECONDS if too_large else BODY_SECONDS
    try:
        return await asyncio.wait_for(_body(request, limit), seconds)
    except asyncio.TimeoutError:
        if too_large:
            raise _too_large(limit) from None
        raise ApiError(408, f"the body has not arrived in {seconds:.0f} s") from None


async def _body(request: Request, limit: int) -> bytes:
    """Receive a whole body; hold at most `limit` bytes of it, plus one piece of the stream."""
    held, size, claim = bytearray(), 0, claim_of(request.scope)
    async for piece in request.stream():
        size += len(piece)
        if size <= limit:
            claim.take(len(piece))
            held += piece
        elif size > limit * DRAINED:
            break
    if size > limit:
        raise _too_large(limit)
    return bytes(held)


def _too_large(limit: int) -> ApiError:
    return ApiError(
        413, f"the request has more than {limit:,} bytes, which is the limit", "request_too_large"
    )


def _parsed(body: bytes) -> dict[str, Any]:
    try:
        text = body.decode("utf-8")
        value = json.loads(text, parse_float=_finite, parse_constant=_no_constant)
    except UnicodeDecodeError as error:
        raise ApiError(400, f"the body is not UTF-8 (byte {error.start})", "invalid_json") from None
    except RecursionError:
        raise ApiError(400, "the body is nested too deeply", "invalid_json") from None
    except ValueError as error:
        raise ApiError(400, f"the body is not JSON: {error}", "invalid_json") from None
    if not isinstance(value, dict):
        raise ApiError(400, "the body must be a JSON object, as {...}", "invalid_json")
    return value


def _finite(digits: str) -> float:
    """Parse a finite number; JSON has no infinity, and responses repeat some parameters."""
    number = float(digits)
    if math.isinf(number):
        raise ValueError(f"{digits[:40]} is too large: give numbers up to {sys.float_info.max:.1e}")
    return number


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")
