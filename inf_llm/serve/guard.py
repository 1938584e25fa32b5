"""Checks and headers that apply to every request: Host, security headers, and counting."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from inf_llm.serve.admission import Admission
from inf_llm.serve.errors import ApiError
from inf_llm.serve.metrics import Metrics
from inf_llm.serve.wire import refusal

_LOCAL_HOSTS = ("localhost", "127.0.0.1", "[::1]")
_HEADERS = [(b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer")]
_log = logging.getLogger("inf_llm.serve")


class Guard:
    """The middleware around the application.

    Args:
        app: the application.
        local: accept local host names only, against DNS rebinding by web pages in a browser.
        hosts: host names that are accepted beside the local ones.
        metrics: counts the responses.
        paths: the path of each endpoint, for the metrics.
        admission: counts the bytes and the queue places of requests.
    """

    def __init__(
        self,
        app: ASGIApp,
        local: bool,
        hosts: Sequence[str],
        metrics: Metrics,
        paths: Mapping[Any, str],
        admission: Admission,
    ) -> None:
        self._app, self._metrics, self._paths = app, metrics, paths
        self._hosts = (*_LOCAL_HOSTS, *hosts) if local else None
        self._admission = admission

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def counted(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = [*message["headers"], *_HEADERS]
                route = self._paths.get(scope.get("endpoint"), "none")
                self._metrics.requests.labels(route, message["status"]).inc()
            await send(message)

        app = self._app if self._welcome(scope) else refusal(self._wrong_host(scope))
        try:
            with self._admission.claim(scope):
                await app(scope, receive, counted)
        except ClientDisconnect:
            pass
        except Exception:
            _log.exception("%s %s failed", scope["method"], scope["path"])
            if not started:
                failure = ApiError(500, "the request failed", "internal_error")
                await refusal(failure)(scope, receive, counted)

    def _welcome(self, scope: Scope) -> bool:
        return self._hosts is None or _host(scope).lower() in self._hosts

    def _wrong_host(self, scope: Scope) -> ApiError:
        host = _host(scope)[:80]
        return ApiError(
            403,
            f"Host is {host!r}: a server on a local address answers only to "
            f"{', '.join(self._hosts or ())}; start it with --allowed-host {host} to add that",
            "bad_host",
        )


def _host(scope: Scope) -> str:
    return re.sub(r":\d*$", "", Request(scope).headers.get("host", ""))
