"""Jobs for the tests of `benchmark/beside`, with the embedded model."""

from __future__ import annotations

import sys
from functools import lru_cache
from pathlib import Path

from benchmark.beside.documents import Library
from benchmark.beside.job import Job
from inf_llm.demo import haystack_text

FAKE = f"{sys.executable} {Path(__file__).with_name('fake_llama_server.py')}"
"""Command of a server without a model."""


@lru_cache(maxsize=4)
def _library(overrides: tuple[str, ...]) -> Library:
    return Library(haystack_text(), (), overrides, questions=2, seed=0, answer=6, threads=1)


def job_of(
    model: str,
    subject: str,
    *overrides: str,
    tokens: int = 1024,
    task: str = "number",
    server: str | None = None,
) -> Job:
    """A job about a document of so many tokens, with two questions."""
    shelf = _library(overrides).shelf(model)
    return Job(
        subject,
        shelf.config,
        shelf.overrides,
        shelf.context(task, tokens, 0),
        answer=6,
        threads=1,
        server=server,
        gguf=shelf.gguf,
        trained=shelf.trained,
    )
