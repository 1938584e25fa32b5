"""Other settings are rolled out without an answer lost; the same ones are taken up again."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

pytest.importorskip("ray.serve", reason="needs the extra 'ray'")

from tests.serve.conftest import start

TWO = ("--engine", "ray", "--replicas", "2", "--replica-cpus", "0.5", "--grace", "120")


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
    return {reply.headers["x-inf-llm-replica"] for reply in replies}


def test_a_stream_goes_on_while_its_replica_is_replaced(tiny_config: Path, address: str) -> None:
    first = start(tiny_config, *TWO, "--address", address)
    before = names(first.address)
    again = start(tiny_config, *TWO, "--address", address)
    assert names(again.address) == before
    again.stop()

    lines: list[str] = []
    begun, leave = threading.Event(), threading.Event()

    def read() -> None:
        body = {"model": first.model, "prompt": "hello", "max_tokens": 1_000_000, "stream": True}
        url = f"{first.address}/v1/completions"
        with httpx.stream("POST", url, json=body, timeout=300) as reply:
            for line in reply.iter_lines():
                lines.append(line)
                begun.set()
                if leave.is_set():
                    return

    reader = threading.Thread(target=read)
    reader.start()
    assert begun.wait(60)
    other = start(tiny_config, *TWO, "--address", address, "--max-new-tokens", "7")
    assert not names(other.address) & before
    replaced, deadline = len(lines), time.monotonic() + 60
    while len(lines) < replaced + 50:
        assert reader.is_alive()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    leave.set()
    reader.join(60)
    assert not any("error" in line for line in lines)
    assert names(first.address) == names(other.address)
    for server in (first, other):
        assert server.stop() == 0
