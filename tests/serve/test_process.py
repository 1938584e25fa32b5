"""The process: keys, budgets, signals, and a long day."""

from __future__ import annotations

import re
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx
import openai
import pytest

from tests.serve.conftest import ServerProcess
from tests.serve.talk import STORY, ask, metric, until

Start = Callable[..., ServerProcess]
BUDGET = 6_000_000


def test_keys_origins_and_names_of_hosts_are_options(started: Start) -> None:
    page = "http://localhost:3000"
    pages = ("--cors-origin", page, "--cors-origin", "app://x")
    server = started("--api-key", "right", *pages, "--allowed-host", "My.Host")
    with pytest.raises(openai.AuthenticationError):
        server.client("wrong").models.list()
    with pytest.raises(openai.AuthenticationError):
        ask(server, "hello")
    assert httpx.get(f"{server.address}/metrics").status_code == 401
    assert httpx.get(f"{server.address}/health").status_code == 200
    assert httpx.get(server.address).status_code == 200
    assert server.client("right").models.list().data
    headers = {"origin": page, "host": "my.host", "authorization": "Bearer right"}
    reply = httpx.get(f"{server.address}/v1/models", headers=headers)
    assert reply.status_code == 200
    assert reply.headers["access-control-allow-origin"] == page


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_a_running_answer_finish(started: Start, number: int) -> None:
    server = started("--grace", "60")
    stream = ask(server, "Go on", max_tokens=150, stream=True)
    chunks = iter(stream)
    next(chunks)
    server.process.send_signal(number)
    rest = list(chunks)
    assert rest[-1].choices[0].finish_reason in ("length", "stop")
    assert server.stop() == 0
    assert any("stopped" in line for line in server.lines)


def _soak(server: ServerProcess, requests: int) -> None:
    """Requests of all sorts; memory must stop growing, and stay within the budget."""

    def one(number: int) -> None:
        kind = number % 5
        if kind == 4:
            with pytest.raises(openai.BadRequestError):
                ask(server, "hello", n=0)
        elif kind == 3:
            stream = ask(server, f"{number} " * 200, max_tokens=500, stream=True)
            next(iter(stream))
            stream.close()
        else:
            text = f"{number if kind else 0} " + STORY
            assert ask(server, text, max_tokens=3).usage.completion_tokens <= 3

    def run(first: int, last: int) -> None:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(one, range(first, last)))
        until(lambda: metric(server, "jobs_running") + metric(server, "jobs_waiting") == 0, 120)

    warm = requests // 4
    run(0, warm)
    before = server.resident_bytes()
    run(warm, requests)
    assert metric(server, "memory_bytes") <= BUDGET
    assert metric(server, "memories_evicted_total") > 0
    assert server.resident_bytes() < before + 64_000_000
    assert ask(server, "Still there?").choices


PER_TEXT = 200_000
"""Bytes, less than a tenth of what the memory of one of these texts takes."""
CONSTANT = 100_000_000
"""Bytes that a process takes beside the model and the budget, while it reads and answers."""


class Peak:
    """The most memory of a process while it lasts."""

    def __init__(self, server: ServerProcess) -> None:
        self._server, self._over = server, threading.Event()
        self.bytes = 0
        self._thread = threading.Thread(target=self._watch)

    def _watch(self) -> None:
        while not self._over.wait(0.01):
            self.bytes = max(self.bytes, self._server.resident_bytes())

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


def _uploaded(server: ServerProcess, text: str) -> httpx.Response:
    return httpx.post(f"{server.address}/v1/documents", json={"text": text}, timeout=100)


def test_texts_do_not_take_more_than_the_budget(started: Start) -> None:
    """One that is larger, eight that are together, and one that just fits; all are answered as
    by a server with all the memory there is."""
    bounded, free = started("--memory-budget", str(BUDGET)), started()
    texts = [f"{number}. " + STORY for number in range(8)]
    ask(bounded, "Hello")
    before = bounded.resident_bytes()
    with Peak(bounded) as peak:
        error = _uploaded(bounded, STORY * 10).json()["error"]
        assert error["bytes"] > BUDGET == error["memory_budget"]
        longest = int(re.search(r"at most ([\d,]+) tokens", error["message"])[1].replace(",", ""))
        id_lists = []
        for text in [*texts, (STORY * 10)[: longest - 200]]:
            documents = [_uploaded(server, text).json() for server in (bounded, free)]
            assert documents[0]["kept"]
            id_lists.append([document["id"] for document in documents])
            assert metric(bounded, "memory_bytes") <= BUDGET
        assert metric(free, "memory_bytes") > 2 * BUDGET
        for ids in [id_lists[-1], *id_lists[::7]]:
            one, other = (
                ask(server, "What?", max_tokens=4, extra_body={"document": name})
                for server, name in zip((bounded, free), ids, strict=True)
            )
            assert one.choices[0].message.content == other.choices[0].message.content
    assert metric(bounded, "memories_evicted_total") > 0
    assert peak.bytes < before + BUDGET + CONSTANT


def test_memory_does_not_grow_with_the_number_of_texts(started: Start) -> None:
    """Texts of several lengths go through a budget that has room for a few."""
    server = started("--memory-budget", str(BUDGET))
    texts = (f"{number}. " + STORY[: 700 * (1 + number % 3)] for number in range(1000))

    def settled(uploads: int) -> int:
        for _ in range(uploads):
            assert _uploaded(server, next(texts)).status_code == 201
        time.sleep(2)  # what is free goes back to the system
        return server.resident_bytes()

    warm = settled(10)
    assert settled(16) - warm < 16 * PER_TEXT


@pytest.mark.slow
def test_a_long_day(started: Start) -> None:
    _soak(started("--memory-budget", str(BUDGET)), 500)
