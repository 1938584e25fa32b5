"""HTTP connections with a limit on their number and on the time that each may stall.

uvicorn closes a connection that is idle after a response. This module also closes connections of
clients that send nothing, send half of a request, or do not read their response.
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
"""Most seconds from the connection, or a later request's first byte, to the end of the headers."""
STUCK_SECONDS = 60.0
"""Most seconds in which a client reads nothing of its response while the send buffer is full."""
MAX_REFUSED, REFUSED_SECONDS = 16, 1.0
"""Most refused connections, and the seconds that each stays open, so that the client can read the
error."""


class WebConfig(uvicorn.Config):
    """uvicorn's configuration, with the most connections at once."""

    most_connections: int


class Connection(H11Protocol):
    """See `H11Protocol`, the one protocol that uvicorn always installs."""

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
        """See `H11Protocol`; the invalid bytes may follow a request that is being answered."""
        if not self.idle:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        with contextlib.suppress(h11.LocalProtocolError):  # a response has begun
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
        """Refuse a client whose request headers have not arrived in time."""
        self._due = None
        self._refuse(ApiError(408, f"no request has arrived in {HEAD_SECONDS:.0f} s"))

    def _make_room(self) -> bool:
        """Close the connection that has been idle for longest; return whether there is one."""
        others = cast("set[Connection]", self.connections) - {self}
        idle = [one for one in others if one.idle and not one._refused]
        longest = min(idle, key=lambda one: one._since, default=None)
        if longest is not None:
            longest._refused = True
            longest.transport.close()
        return longest is not None

    def _refuse(self, error: ApiError) -> None:
        """Send an error without reading a request, and close the connection soon after."""
        self._refused = True
        refused = sum(one._refused for one in cast("set[Connection]", self.connections))
        if refused > MAX_REFUSED:
            self.transport.abort()
            return
        self.transport.write(_whole(error))
        self.loop.call_later(REFUSED_SECONDS, self.transport.abort)


def _end(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()


def _whole(error: ApiError) -> bytes:
    """Encode an error as a complete HTTP response."""
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
