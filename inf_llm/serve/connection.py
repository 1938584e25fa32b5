"""One connection: how many there may be, and how long each may keep the server waiting.

uvicorn closes a connection that is idle after an answer. A client that connects and says nothing,
sends half of a request, or does not read its answer would stay for ever.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, cast

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from inf_llm.serve.errors import ApiError, busy
from inf_llm.serve.wire import json_line

HEAD_SECONDS = 15.0
"""A request's head must have arrived so long after the connection was made, or its first byte."""
STUCK_SECONDS = 60.0
"""A client must take some of its answer in so many seconds."""
MOST_REFUSED, REFUSED_SECONDS = 16, 1.0
"""Connections beyond the limit that are open for so long, so that their clients read why."""


class WebConfig(uvicorn.Config):
    """uvicorn's, with the most connections at once."""

    most_connections: int


class Connection(H11Protocol):
    """See `H11Protocol`; of uvicorn's protocols it is the one that is always there."""

    config: WebConfig
    _due: asyncio.TimerHandle | None = None
    _stuck: asyncio.TimerHandle | None = None
    _refused = False
    _since = 0.0

    @property
    def idle(self) -> bool:
        """Whether no request is being answered."""
        return self.cycle is None or self.cycle.response_complete

    def connection_made(self, transport: Any) -> None:
        """See `asyncio.Protocol`."""
        super().connection_made(transport)
        self._since = self.loop.time()
        if len(self.connections) > self.config.most_connections and not self._make_room():
            self._refuse(busy(503, f"{self.config.most_connections} connections are open already"))
        else:
            self._due = self.loop.call_later(HEAD_SECONDS, self._too_late)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        if self._refused:
            return
        if self.idle and self._due is None:
            self._due = self.loop.call_later(HEAD_SECONDS, self._too_late)
        super().data_received(data)
        if not self.idle:
            _end(self._due)
            self._due = None

    def send_400_response(self, msg: str) -> None:
        """See `H11Protocol`; what follows a head may be no HTTP while that is being answered."""
        if not self.idle:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        with contextlib.suppress(h11.LocalProtocolError):  # an answer has begun
            super().send_400_response(msg)
        self.transport.close()

    def pause_writing(self) -> None:
        """See `asyncio.Protocol`."""
        super().pause_writing()
        self._stuck = self.loop.call_later(STUCK_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """See `asyncio.Protocol`."""
        super().resume_writing()
        _end(self._stuck)

    def on_response_complete(self) -> None:
        """See `H11Protocol`."""
        self._since = self.loop.time()
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        _end(self._due)
        _end(self._stuck)
        super().connection_lost(exc)

    def _too_late(self) -> None:
        """The head of a request has not come in time."""
        self._due = None
        self._refuse(ApiError(408, f"no request has arrived in {HEAD_SECONDS:.0f} s"))

    def _make_room(self) -> bool:
        """Close the connection that has been idle for longest; whether there is one."""
        others = cast("set[Connection]", self.connections) - {self}
        idle = [one for one in others if one.idle and not one._refused]
        longest = min(idle, key=lambda one: one._since, default=None)
        if longest is not None:
            longest._refused = True
            longest.transport.close()
        return longest is not None

    def _refuse(self, error: ApiError) -> None:
        """Answer whatever may come, and close soon."""
        self._refused = True
        refused = sum(one._refused for one in cast("set[Connection]", self.connections))
        if refused > MOST_REFUSED:
            self.transport.abort()
            return
        self.transport.write(_whole(error))
        self.loop.call_later(REFUSED_SECONDS, self.transport.abort)


def _end(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()


def _whole(error: ApiError) -> bytes:
    """An error as the bytes of an answer."""
    body = json_line(error.body())
    headers = {
        **error.headers,
        "Content-Type": "application/json; charset=utf-8",
        "Content-Length": str(len(body)),
        "Connection": "close",
    }
    lines = [f"HTTP/1.1 {error.status} {_REASONS[error.status]}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


_REASONS = {408: "Request Timeout", 503: "Service Unavailable"}
