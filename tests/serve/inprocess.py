"""A server of the tiny model in this process: the application is called as a web server would."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx

import inf_llm
from inf_llm.config import ModelConfig, RunConfig
from inf_llm.serve.start import ServeOptions, build
from inf_llm.serve.worker import Job
from inf_llm.settings import make_settings
from tests.tiny import SETTINGS, tiny_model, tiny_tokenizer

CHAT = "/v1/chat/completions"


@dataclass
class Local:
    """An application, and a client without a socket."""

    app: Any
    model: str = "tiny-model"

    def request(self, method: str, path: str, **more: Any) -> httpx.Response:
        async def go() -> httpx.Response:
            async with self.client() as client:
                return await client.request(method, path, **more)

        return asyncio.run(go())

    def client(self) -> httpx.AsyncClient:
        """A client, for requests that belong to one event loop."""
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=True)
        return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", timeout=60)

    def post(self, path: str, body: Any) -> httpx.Response:
        return self.request("POST", path, json=body)

    def ask(self, text: str = "hello", **more: Any) -> httpx.Response:
        return self.post(CHAT, self.question(text, **more))

    def question(self, text: str, **more: Any) -> dict[str, Any]:
        """The body of a request to `CHAT`."""
        messages = [{"role": "user", "content": text}]
        return {"model": self.model, "messages": messages} | more


def occupied(server: Local, seconds: float = 60) -> threading.Event:
    """Let the model's thread do nothing until this is set, or for so long."""
    gate = threading.Event()

    def wait(job: Job) -> Iterator[Any]:
        gate.wait(seconds)
        return
        yield

    server.app.worker.submit(Job("another", wait, lambda result: None))
    return gate


def streamed(reply: httpx.Response) -> list[dict[str, Any]]:
    """The values of an event stream, split as clients do who split at every line separator."""
    lines = [line[6:] for line in reply.text.splitlines() if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


@contextmanager
def local(
    max_len: int = 2**31 - 1, truncation: str | None = None, **options: Any
) -> Iterator[Local]:
    """A server that runs within the statement."""
    model = tiny_model()
    model.config.eos_token_id = model.generation_config.eos_token_id = None  # it talks on
    inf_llm.patch(model, type="inf-llm", **SETTINGS)
    config = RunConfig(
        ModelConfig("tiny-model"), make_settings(**SETTINGS), max_len, truncation, chunk_size=64
    )
    app = build(model, tiny_tokenizer(), config, ServeOptions(**options))
    app.worker.start()
    yield Local(app)
    assert app.worker.stop(30)
    if app.engine.library is not None:
        app.engine.library.close()
