"""What tests say to a server that can be reached, and what they wait for."""

from __future__ import annotations

import time
from typing import Any

import httpx

from tests.serve.conftest import Server

STORY = "It was the best of times, it was the worst of times. " * 40


def ask(server: Server, text: str, **more: Any) -> Any:
    return server.client().chat.completions.create(
        model=server.model, messages=[{"role": "user", "content": text}], **more
    )


def metric(server: Server, name: str) -> float:
    lines = httpx.get(f"{server.address}/metrics").text.splitlines()
    return next(float(line.split()[-1]) for line in lines if line.startswith(f"inf_llm_{name} "))


def until(condition: Any, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)
