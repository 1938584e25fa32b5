"""What holds for every request, with bodies and clients as bad as they come."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from inf_llm.serve import wire
from tests.serve.inprocess import CHAT, Local, local

LIMIT = 10_000


@pytest.fixture(scope="module")
def server() -> Iterator[Local]:
    with local(request_bytes=LIMIT, answer_tokens=2) as running:
        yield running


@pytest.fixture(scope="module")
def keyed() -> Iterator[Local]:
    with local(api_key="right") as running:
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
    while server.app.worker.running:
        assert time.monotonic() < started + 30
        time.sleep(0.01)
    assert counted(server, "cancelled_total") == before + 1
    assert server.ask().status_code == 200


def test_an_error_that_nobody_foresaw(server: Local, monkeypatch: Any) -> None:
    def fail(*_: Any) -> None:
        raise ZeroDivisionError("a secret")

    monkeypatch.setattr(server.app.documents, "get", fail)
    before = counted(server, "requests_total", route="/v1/documents/{id}", status="500")
    reply = server.request("GET", "/v1/documents/x")
    assert reply.status_code == 500
    assert reply.json()["error"]["type"] == "server_error"
    assert "secret" not in reply.text
    assert counted(server, "requests_total", route="/v1/documents/{id}", status="500") == before + 1
    monkeypatch.setattr(server.app.engine, "answer", fail)
    for more in ({}, {"stream": True}):
        reply = server.ask(**more)
        assert reply.status_code == 500
        assert reply.json()["error"]["code"] == "internal_error"


def test_paths_and_methods_that_are_not_there(server: Local) -> None:
    for method, path, status, allowed in [
        ("GET", "/v1/nothing", 404, None),
        ("GET", "/v1/documents/", 404, None),
        ("GET", CHAT, 405, "POST"),
        ("PUT", "/v1/documents/x", 405, "DELETE, GET"),
        ("POST", "/health", 405, "GET"),
    ]:
        reply = server.request(method, path)
        error = reply.json()["error"]
        assert reply.status_code == status
        assert error["code"] == ("bad_method" if allowed else "not_found")
        assert reply.headers.get("allow") == allowed
        assert (allowed or path) in error["message"]
    assert server.request("HEAD", "/health").status_code == 200


def test_every_answer_has_the_headers_and_a_wrong_host_has_none_else(server: Local) -> None:
    for path, host in [("/", "localhost"), ("/v1/no", "localhost"), ("/", "evil.example")]:
        reply = server.request("GET", path, headers={"host": host})
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert reply.headers["referrer-policy"] == "no-referrer"
    assert reply.status_code == 403
    assert "evil.example" in reply.json()["error"]["message"]
    for host in ("localhost:81", "127.0.0.1", "[::1]:9000", "LOCALHOST"):
        assert server.request("GET", "/", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "given", [None, b"Bearer wrong", b"Basic right", b"Bearer", b"Bearer \xdf"]
)
def test_a_key_is_needed(keyed: Local, given: bytes | None) -> None:
    headers = [] if given is None else [(b"authorization", given)]
    for path in ("/metrics", "/v1/models", "/v1/documents/x"):
        reply = keyed.request("GET", path, headers=headers)
        assert reply.status_code == 401
        assert reply.headers["www-authenticate"] == "Bearer"
        assert reply.json()["error"]["type"] == "authentication_error"
    assert keyed.request("GET", "/health", headers=headers).status_code == 200
    right = {"authorization": "bearer right"}
    assert keyed.request("GET", "/v1/models", headers=right).status_code == 200


def test_what_only_grows_is_a_counter(server: Local) -> None:
    server.ask()
    text = server.request("GET", "/metrics").text
    kinds = {family.name: family.type for family in text_string_to_metric_families(text)}
    grows = ("requests", "prompt_tokens", "cached_tokens", "generated_tokens", "cancelled")
    for name in (*grows, "memories_evicted"):
        assert kinds[f"inf_llm_{name}"] == "counter"
    for name in ("memory_bytes", "memories", "documents", "jobs_waiting", "jobs_running"):
        assert kinds[f"inf_llm_{name}"] == "gauge"
    for name in ("first_token_seconds", "request_seconds"):
        assert kinds[f"inf_llm_{name}"] == "histogram"
    assert f'route="{CHAT}",status="200"' in text
