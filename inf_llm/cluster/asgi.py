"""Calls of an ASGI application without a socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from starlette.types import ASGIApp, Message, Scope


async def messages(app: ASGIApp, scope: Scope, body: bytes) -> AsyncGenerator[Message, None]:
    """Yield the messages that an ASGI application sends for one request.

    If the iterator is closed early, the application receives `http.disconnect`.
    """
    sent: asyncio.Queue[Message | None] = asyncio.Queue()
    given, left = [{"type": "http.request", "body": body, "more_body": False}], asyncio.Event()

    async def receive() -> Message:
        if given:
            return given.pop()
        await left.wait()
        return {"type": "http.disconnect"}

    async def answer() -> None:
        await app(scope, receive, sent.put)

    task = asyncio.create_task(answer())
    task.add_done_callback(lambda _: sent.put_nowait(None))
    try:
        while (message := await sent.get()) is not None:
            yield message
        await task
    finally:
        left.set()
