"""Other settings are rolled out without an answer lost; the same ones are taken up again."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

pytest.importorskip("ray.serve", reason="needs the extra 'ray'")

from tests.serve.conftest import ServerProcess, start
from tests.serve.talk import until

REPLICA = "x-inf-llm-replica"
TWO = ("--engine", "ray", "--replicas", "2", "--replica-cpus", "0.5", "--grace", "300")


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A cluster that outlives its clients."""
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    options = ["--head", f"--port={port}", "--num-cpus=4", "--include-dashboard=false", "--block"]
    command = [str(Path(sys.executable).parent / "ray"), "start", *options, "--disable-usage-stats"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    yield f"127.0.0.1:{port}"
    process.terminate()
    process.wait(60)


def names(server: str) -> set[str]:
    """Of the replicas that answer."""
    with httpx.Client(base_url=server, timeout=120) as client:
        replies = [client.get("/v1/models") for _ in range(30)]
    return {reply.headers[REPLICA] for reply in replies}


class Stream:
    """An answer without an end, from a server."""

    def __init__(self, server: ServerProcess) -> None:
        self.lines: list[str] = []
        self.leave = threading.Event()
        body = {"model": server.model, "prompt": "hello", "max_tokens": 10**6, "stream": True}
        url = f"{server.address}/v1/completions"
        self._streaming = httpx.stream("POST", url, json=body, timeout=300)

    def __enter__(self) -> Stream:
        self._reply = self._streaming.__enter__()
        self.replica = self._reply.headers[REPLICA]
        return self

    def read(self) -> None:
        """Read on until it is time to leave."""
        for line in self._reply.iter_lines():
            self.lines.append(line)
            if self.leave.is_set():
                return

    def __exit__(self, *error: Any) -> None:
        self.leave.set()
        self._streaming.__exit__(*error)


@pytest.mark.slow
def test_a_stream_goes_on_while_its_replica_is_replaced(tiny_config: Path, address: str) -> None:
    first = start(tiny_config, *TWO, "--address", address)
    before = names(first.address)
    again = start(tiny_config, *TWO, "--address", address)
    assert names(again.address) == before
    again.stop()

    with ThreadPoolExecutor(2) as pool, Stream(first) as stream:
        pool.submit(stream.read)
        other = pool.submit(start, tiny_config, *TWO, "--address", address, "--max-new-tokens", "7")
        until(lambda: stream.replica not in names(first.address), 200)  # it is to end
        seen = len(stream.lines)
        until(lambda: len(stream.lines) > seen + 500, 60)
        assert not other.done()
        stream.leave.set()
    assert not any("error" in line for line in stream.lines)
    servers = first, other.result()
    assert names(servers[0].address) == names(servers[1].address)
    assert not names(servers[0].address) & before
    for server in servers:
        assert server.stop() == 0
