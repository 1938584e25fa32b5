"""An application that is called without a socket."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send

from inf_llm.cluster.asgi import messages

SCOPE = {"type": "http", "path": "/"}


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    body = (await receive())["body"]
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


def test_all_that_is_sent_comes() -> None:
    async def go() -> list[Any]:
        return [message async for message in messages(echo, SCOPE, b"hello")]

    start, body = asyncio.run(go())
    assert (start["status"], body["body"]) == (200, b"hello")


def test_one_that_is_closed_has_a_client_that_left() -> None:
    left = asyncio.Event()

    async def talk(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        assert (await receive())["type"] == "http.disconnect"
        left.set()

    async def go() -> None:
        answer = messages(talk, SCOPE, b"")
        await anext(answer)
        await answer.aclose()
        await asyncio.wait_for(left.wait(), 5)

    asyncio.run(go())


def test_its_failure_is_the_callers() -> None:
    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        raise RuntimeError("broken")

    async def go() -> None:
        async for _ in messages(broken, SCOPE, b""):
            pass

    with pytest.raises(RuntimeError, match="broken"):
        asyncio.run(go())
