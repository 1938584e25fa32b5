"""What holds for every request, with bodies and clients as bad as they come."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from inf_llm.serve import wire
from tests.serve.inprocess import CHAT, Local, local

LIMIT = 10_000


@pytest.fixture(scope="module")
def server() -> Iterator[Local]:
    with local(request_bytes=LIMIT, answer_tokens=2) as running:
        yield running


class Client:
    """One request as ASGI sees it: pieces of a body, then silence or a closed connection."""

    def __init__(self, *pieces: bytes, more: bool = False, leaves: bool = False) -> None:
        self.waiting = [
            {"type": "http.request", "body": piece, "more_body": more or at < len(pieces) - 1}
            for at, piece in enumerate(pieces)
        ]
        self.leaves = leaves
        self.taken = 0
        self.sent: list[Any] = []

    async def receive(self) -> dict[str, Any]:
        if self.waiting:
            self.taken += 1
            return self.waiting.pop(0)
        if not self.leaves:
            await asyncio.sleep(1000)
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        self.sent.append(message)

    def post(self, server: Local, **headers: str) -> int | None:
        """The status of the answer, or None where there is none."""
        headers = {"host": "localhost", "content-type": "application/json"} | headers
        scope = {
            "type": "http",
            "method": "POST",
            "path": CHAT,
            "query_string": b"",
            "headers": [
                (name.replace("_", "-").encode(), v.encode()) for name, v in headers.items()
            ],
        }
        asyncio.run(server.app(scope, self.receive, self.send))
        return self.sent[0]["status"] if self.sent else None

    @property
    def error(self) -> dict[str, Any]:
        return json.loads(self.sent[1]["body"])["error"]


def counted(server: Local, name: str, **labels: str) -> float:
    return server.app.metrics.registry.get_sample_value(f"inf_llm_{name}", labels) or 0.0


def test_a_body_that_does_not_say_how_large_it_is(server: Local) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b" " * 1000

    reply = server.request(
        "POST", CHAT, content=pieces(), headers={"content-type": "application/json"}
    )
    assert reply.status_code == 413
    assert reply.json()["error"]["code"] == "request_too_large"


def test_a_body_without_end_is_not_read_on(server: Local) -> None:
    client = Client(*[b" " * LIMIT] * 100, more=True)
    assert client.post(server) == 413
    assert client.taken == wire.DRAINED + 1


@pytest.mark.parametrize("declared", [{}, {"content_length": "100"}])
def test_a_slow_body(server: Local, declared: dict[str, str], monkeypatch: Any) -> None:
    monkeypatch.setattr(wire, "BODY_SECONDS", 0.1)
    client = Client(b"{", more=True)
    assert client.post(server, **declared) == 408
    assert client.error["type"] == "invalid_request_error"


def test_a_slow_body_that_is_too_large(server: Local, monkeypatch: Any) -> None:
    monkeypatch.setattr(wire, "DRAIN_SECONDS", 0.1)
    assert Client(b"{", more=True).post(server, content_length=str(LIMIT + 1)) == 413
    assert Client(b"{}").post(server, content_length="²") == 400


def test_a_client_that_leaves_in_the_middle_of_its_body(server: Local) -> None:
    client = Client(b"{", more=True, leaves=True)
    assert client.post(server) is None


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_in_the_middle_of_its_answer(server: Local, stream: bool) -> None:
    before = counted(server, "cancelled_total")
    messages = [{"role": "user", "content": "go on"}]
    body = {"model": server.model, "messages": messages, "max_tokens": 10**6, "stream": stream}
    started = time.monotonic()
    Client(json.dumps(body).encode(), leaves=True).post(server)
    while server.app.worker.running or server.app.worker.waiting:
        assert time.monotonic() < started + 30
        time.sleep(0.01)
    assert counted(server, "cancelled_total") == before + 1
    assert server.ask().status_code == 200


def test_every_answer_has_the_headers_and_a_wrong_host_has_none_else(server: Local) -> None:
    for path, host in [("/", "localhost"), ("/v1/no", "localhost"), ("/", "evil.example")]:
        reply = server.request("GET", path, headers={"host": host})
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert reply.headers["referrer-policy"] == "no-referrer"
    assert reply.status_code == 403
    assert "evil.example" in reply.json()["error"]["message"]
    for host in ("localhost:81", "127.0.0.1", "[::1]:9000", "LOCALHOST"):
        assert server.request("GET", "/", headers={"host": host}).status_code == 200
