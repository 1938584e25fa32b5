"""The front of several replicas: each request goes to the replica that holds its memory."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive, Scope, Send

from inf_llm.cluster.affinity import memory_key
from inf_llm.cluster.relay import Relay
from inf_llm.serve.admission import Admission
from inf_llm.serve.errors import ApiError
from inf_llm.serve.wire import whole_body

_SCOPE = {"type", "asgi", "http_version", "method", "scheme", "path", "raw_path", "query_string"}
_SCOPE |= {"root_path", "headers", "client", "server"}


class Front:
    """An ASGI application that forwards requests to replicas.

    It holds no model and no memory, so any number of fronts may forward to the same replicas.

    Args:
        handle: a Ray Serve handle of `Replica`s.
        request_bytes: largest body of a request, in bytes.
    """

    def __init__(self, handle: Any, request_bytes: int) -> None:
        self._answer = handle.options(method_name="answer", stream=True)
        self._limit = request_bytes
        self._admission = Admission.of(0, request_bytes)  # replicas limit the queue
        self._going: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle an ASGI connection; see the specification of ASGI."""
        if scope["type"] != "http":
            return
        relay = Relay(scope, receive, send)
        try:
            with self._admission.claim(scope):
                await self._forward(Request(scope, receive), relay)
        except ApiError as error:
            await relay.fail(error)
        except ClientDisconnect:
            pass

    def stop(self, seconds: float) -> bool:
        """Cancel all requests; call this from a thread other than that of the event loop."""
        for task in [*self._going]:
            task.get_loop().call_soon_threadsafe(task.cancel)
        return True

    async def _forward(self, request: Request, relay: Relay) -> None:
        if request.url.path == "/metrics":
            raise ApiError(
                404,
                "every replica has metrics of its own: Ray exports them on its node",
                "not_found",
            )
        body = await whole_body(request, self._limit)
        scope = {name: request.scope[name] for name in _SCOPE if name in request.scope}
        stream = self._answer.remote(memory_key(request.url.path, body), scope, body)
        sending = asyncio.create_task(relay.send_all(stream))
        leaving = asyncio.create_task(_left(request))
        self._going.add(sending)
        try:
            await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if sending.cancelled():
                raise ApiError(503, "the server is stopping", "stopping")
            if sending.done():
                sending.result()
        finally:
            self._going.discard(sending)
            for task in (sending, leaving):
                task.cancel()
            stream.cancel()


async def _left(request: Request) -> None:
    """Wait until the client disconnects or has its answer; the body must have been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
