"""A question about a text that a replica holds, beside one for which it must be read."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

pytest.importorskip("ray.serve", reason="needs the extra 'ray'")

from tests.serve.conftest import start

OPTIONS = ("--engine", "ray", "--replicas", "2", "--replica-cpus", "0.5")
PROSE = "The sky is blue and the grass is green. " * 2500
TEXT = f"{PROSE}The pass key is 48213. Remember it. {PROSE}"
ASK = "What is the pass key?"


@pytest.mark.slow
def test_the_first_word_comes_at_least_20_times_sooner(tmp_path: Path) -> None:
    server = start("demo", *OPTIONS, "--memory-dir", str(tmp_path))
    try:
        with httpx.Client(base_url=server.address, timeout=600) as http:
            document = http.post("/v1/documents", json={"text": TEXT}).json()
            about = {"model": server.model, "document": document["id"]}
            held = [_first_word(http, about | _asking(ASK)) for _ in range(3)]
            text = {"model": server.model} | _asking(f"Read this. {TEXT}\n\n{ASK}")
            anew = _first_word(http, text)
    finally:
        server.stop()
    print(f"{document['tokens']:,} tokens: {held} s, anew {anew:.1f} s")
    assert anew > 20 * max(held)


def _asking(words: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": words}], "max_tokens": 12, "stream": True}


def _first_word(http: httpx.Client, body: dict[str, Any]) -> float:
    """Seconds to the first text of an answer."""
    began = time.monotonic()
    with http.stream("POST", "/v1/chat/completions", json=body) as reply:
        for line in reply.iter_lines():
            choices = json.loads(line[6:])["choices"] if line.startswith("data: {") else []
            if any(choice["delta"].get("content") for choice in choices):
                return time.monotonic() - began
    raise AssertionError("there was no answer")
