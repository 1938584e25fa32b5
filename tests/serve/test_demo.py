"""With the model that comes with the package: sooner, and the same answer."""

from __future__ import annotations

import lzma
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from inf_llm.hf.load import DEMO
from tests.serve.conftest import Server

CONFIG = Path(__file__).parents[2] / "config" / "demo-inf-llm.yaml"
CHARACTERS, TIMES = 186_000, 20  # some 66 thousand tokens

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (DEMO / "model.safetensors").exists(), reason="no demo model here"),
]


def _first_word(server: Server, prompt: str) -> tuple[float, str, int]:
    """Seconds to the first word, the answer, and how many of its prompt's tokens were read."""
    started, first, text = time.perf_counter(), None, ""
    stream = server.client().chat.completions.create(
        model=server.model,
        messages=[{"role": "user", "content": prompt}],
        max_tokens=24,
        stream=True,
        stream_options={"include_usage": True},
    )
    for chunk in stream:
        if chunk.choices and chunk.choices[0].delta.content:
            first = first or time.perf_counter() - started
            text += chunk.choices[0].delta.content
    return first or 0.0, text, chunk.usage.prompt_tokens


def test_a_second_question_is_answered_at_once(started: Callable[..., Server]) -> None:
    book = lzma.decompress((DEMO / "haystack.txt.xz").read_bytes()).decode()[:CHARACTERS]
    first, second = (f"{book}\n\n{question}" for question in ("Who was it?", "What was it, then?"))
    server, fresh = started(config=CONFIG), started(config=CONFIG)
    slow, _, tokens = _first_word(server, first)
    assert tokens > 64_000
    quick, text, _ = _first_word(server, second)
    assert quick * TIMES < slow
    assert text == _first_word(fresh, second)[1]
    assert httpx.get(f"{server.address}/health").json()["status"] == "ok"
