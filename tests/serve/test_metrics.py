"""Counts and durations, as Prometheus reads them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.serve.inprocess import CHAT, Local, local

LIMIT = 10_000


@pytest.fixture(scope="module")
def server() -> Iterator[Local]:
    with local(request_bytes=LIMIT, answer_tokens=2) as running:
        yield running


def test_what_only_grows_is_a_counter(server: Local) -> None:
    server.ask()
    text = server.request("GET", "/metrics").text
    kinds = {family.name: family.type for family in text_string_to_metric_families(text)}
    grows = ("requests", "prompt_tokens", "cached_tokens", "generated_tokens", "cancelled")
    for name in (*grows, "memories_evicted"):
        assert kinds[f"inf_llm_{name}"] == "counter"
    for name in ("memory_bytes", "memories", "documents", "jobs_waiting", "jobs_running"):
        assert kinds[f"inf_llm_{name}"] == "gauge"
    for name in ("first_token_seconds", "request_seconds"):
        assert kinds[f"inf_llm_{name}"] == "histogram"
    assert f'route="{CHAT}",status="200"' in text
