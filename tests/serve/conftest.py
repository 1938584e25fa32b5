"""Servers of a tiny random model: in this process for most tests, in its own as users start it."""

from __future__ import annotations

import os
import queue
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("uvicorn", reason="needs the extra 'serve'")
pytest.importorskip("starlette", reason="needs the extra 'serve'")
pytest.importorskip("prometheus_client", reason="needs the extra 'serve'")
pytest.importorskip("openai", reason="needs the official client, of the extra 'dev'")

import httpx
import openai
import pytest

from inf_llm.serve.web import WebServer, listen
from tests.serve.inprocess import Local, local
from tests.tiny import SETTINGS, tiny_model, tiny_tokenizer

READY_SECONDS = 120


@dataclass
class Server:
    """A server that can be reached."""

    address: str
    model: str

    def client(self, key: str = "any", **more: Any) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.address}/v1", api_key=key, max_retries=0, **more)

    def http(self) -> httpx.Client:
        """A client of routes that are not OpenAI's."""
        return httpx.Client(base_url=self.address, timeout=60)


@dataclass
class ServerProcess(Server):
    """A running `inf-llm serve`."""

    process: subprocess.Popen[str]
    lines: list[str] = field(default_factory=list)

    def resident_bytes(self) -> int:
        pages = Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def open_files(self) -> int:
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def stop(self, with_signal: int = signal.SIGTERM, seconds: float = 60) -> int:
        if self.process.poll() is None:
            self.process.send_signal(with_signal)
        return self.process.wait(seconds)


def start(config: Path | str, *options: str, files: int | None = None) -> ServerProcess:
    """Start a server on a free port, and wait until it says where it is.

    `files` is how many it may open.
    """
    limit = [] if files is None else ["bash", "-c", f'ulimit -n {files}; exec "$@"', "bash"]
    command = [sys.executable, "-c", "from inf_llm.cli import main; main()", "serve"]
    process = subprocess.Popen(
        [*limit, *command, "--config", str(config), "--port", "0", *options],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
    )
    assert process.stderr is not None
    lines: list[str] = []
    for line in process.stderr:
        lines.append(line)
        match = re.search(r"serving (\S+) at (http://\S+?),", line)
        if match:
            server = ServerProcess(match[2], match[1], process, lines)
            threading.Thread(target=lambda: lines.extend(process.stderr), daemon=True).start()
            return server
    raise AssertionError(f"the server did not start: {''.join(lines)}")


@pytest.fixture(scope="session")
def tiny_config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration of the tiny model, in a folder with it."""
    folder = tmp_path_factory.mktemp("tiny") / "tiny-model"
    model = tiny_model()
    model.config.eos_token_id = model.generation_config.eos_token_id = None  # it talks on
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    rows = "".join(f"  {key}: {value}\n" for key, value in SETTINGS.items())
    file = folder.parent / "tiny.yaml"
    file.write_text(f"model:\n  type: inf-llm\n  path: {folder}\n{rows}chunk_size: 256\n")
    return file


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server on a socket of its own, in a thread of this process."""
    with local(answer_tokens=16, request_bytes=3_000_000) as running:
        addresses: queue.Queue[str] = queue.Queue()
        web = WebServer(running.app, listen("127.0.0.1", 0), addresses.put, grace=1)
        thread = threading.Thread(target=web.run)
        thread.start()
        yield Server(addresses.get(timeout=READY_SECONDS), running.model)
        web.should_exit = True
        thread.join()


@pytest.fixture
def started(tiny_config: Path) -> Iterator[Callable[..., ServerProcess]]:
    """Start servers that end with the test."""
    all_started: list[ServerProcess] = []

    def begin(
        *options: str, config: Path | str = tiny_config, files: int | None = None
    ) -> ServerProcess:
        all_started.append(start(config, *options, files=files))
        return all_started[-1]

    yield begin
    for running in all_started:
        running.process.kill()
        running.process.wait(30)


MAX_TOKENS = 300


@pytest.fixture(params=["suffix", "middle"], scope="module")
def cutting(request: pytest.FixtureRequest) -> Iterator[Local]:
    with local(MAX_TOKENS, request.param, answer_tokens=16) as running:
        yield running


@pytest.fixture(scope="module")
def strict() -> Iterator[Local]:
    with local(MAX_TOKENS, answer_tokens=16) as running:
        yield running
