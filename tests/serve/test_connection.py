"""Connections that are idle, half-sent, stuck, or too many."""

from __future__ import annotations

import json
import queue
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from inf_llm.serve import connection, web
from inf_llm.serve.web import WebServer, listen
from tests.serve.inprocess import local
from tests.serve.talk import until

HEAD = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"


@contextmanager
def served(connections: int = 100) -> Iterator[tuple[WebServer, tuple[str, int]]]:
    with local(answer_tokens=2) as running:
        addresses: queue.Queue[str] = queue.Queue()
        server = WebServer(running.app, listen("127.0.0.1", 0), addresses.put, 1, connections)
        thread = threading.Thread(target=server.run)
        thread.start()
        host, port = addresses.get(timeout=60).removeprefix("http://").split(":")
        yield server, (host, int(port))
        server.should_exit = True
        thread.join()


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HEAD_SECONDS", 0.3)
    monkeypatch.setattr(connection, "STUCK_SECONDS", 0.3)
    monkeypatch.setattr(connection, "REFUSED_SECONDS", 0.2)
    monkeypatch.setattr(web, "KEEP_ALIVE", 1)


def all_of(client: socket.socket) -> bytes:
    """What is received until the connection is closed."""
    client.settimeout(10)
    parts = []
    try:
        while part := client.recv(65536):
            parts.append(part)
    except ConnectionError:
        pass
    return b"".join(parts)


@pytest.mark.parametrize("sent", [b"", b"GET / HT", HEAD + b"GET / HT"])
def test_a_request_that_does_not_come(sent: bytes) -> None:
    with served() as (_, address), socket.create_connection(address) as client:
        client.sendall(sent)
        started = time.monotonic()
        received = all_of(client)
        assert time.monotonic() - started < 5
    assert received.count(b"HTTP/1.1 200") == sent.count(b"health")
    if not sent.startswith(HEAD):
        assert received.startswith(b"HTTP/1.1 408 ")
        assert json.loads(received.partition(b"\r\n\r\n")[2])["error"]["message"]


def test_a_head_that_comes_drop_by_drop() -> None:
    with served() as (server, address), socket.create_connection(address) as client:
        started = time.monotonic()
        for _ in range(20):
            try:
                client.sendall(b"X")
            except ConnectionError:
                break
            time.sleep(0.05)
        all_of(client)
        assert time.monotonic() - started < 5
        until(lambda: not server.server_state.connections)


def test_a_request_in_time_is_answered_and_the_next_too() -> None:
    with served() as (_, address), httpx.Client(base_url="http://{}:{}".format(*address)) as client:
        for _ in range(3):
            assert client.get("/health").status_code == 200
            time.sleep(0.35)  # longer than a head may take


def test_a_client_that_does_not_read_its_answer() -> None:
    with served() as (server, address), socket.create_connection(address) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        page = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
        client.sendall(page * 400)
        time.sleep(0.2)
        assert server.server_state.connections
        until(lambda: not server.server_state.connections, 10)


def test_an_idle_connection_leaves_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HEAD_SECONDS", 30)
    with served(connections=2) as (server, address):
        idle = []
        for count in (1, 2):
            idle.append(socket.create_connection(address))
            until(lambda count=count: len(server.server_state.connections) == count)
            time.sleep(0.01)  # the loop's clock may count in milliseconds
        assert httpx.get("http://{}:{}/health".format(*address)).status_code == 200
        assert all_of(idle[0]) == b""  # that which was idle for longest
        idle[1].sendall(HEAD)
        assert idle[1].recv(12) == b"HTTP/1.1 200"
        for client in idle:
            client.close()


def test_what_is_answered_does_not_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "REFUSED_SECONDS", 2)
    with served(connections=1) as (server, address), socket.create_connection(address) as client:
        body = b'{"model":"tiny-model","messages":[{"role":"user","content":"Go on"}]'
        body += b',"max_tokens":100000,"stream":true}'
        client.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: "
            b"application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        )
        assert client.recv(12) == b"HTTP/1.1 200"
        reply = httpx.get("http://{}:{}/health".format(*address))
        assert reply.status_code == 503
        assert reply.headers["retry-after"] == "10"
        assert "1 connections are open" in reply.json()["error"]["message"]
        assert server.server_state.connections


def test_what_is_no_http_within_a_body() -> None:
    with served() as (server, address), socket.create_connection(address) as client:
        client.sendall(
            b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json"
            b"\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"
        )
        assert all_of(client).startswith(b"HTTP/1.1 400")
        until(lambda: not server.server_state.connections)
