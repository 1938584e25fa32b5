"""Counts and durations, as Prometheus reads them."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from inf_llm.serve.worker import Job
from tests.serve.inprocess import CHAT, Local, local, occupied
from tests.serve.talk import until

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


def metrics(server: Local) -> dict[str, float]:
    """Values of what has one."""
    text = server.request("GET", "/metrics").text
    families = [each for each in text_string_to_metric_families(text) if len(each.samples) == 1]
    return {each.name.removeprefix("inf_llm_"): each.samples[0].value for each in families}


def test_tokens_wait_until_they_are_read(server: Local, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of a second prompt while the first is being answered too; those in memory never."""
    jobs: list[Job] = []
    seen: list[tuple[str, int]] = []
    submit = server.app.worker.submit

    def watched(job: Job) -> None:
        emit = job.emit

        def heard(event: object) -> None:
            seen.append((type(event).__name__, job.tokens))
            emit(event)

        job.emit = heard
        submit(job)
        jobs.append(job)

    first, second = [5] * 40, [9] * 70
    body = {"model": server.model, "prompt": [first, second], "max_tokens": 3, "stream": True}
    gate = occupied(server)
    monkeypatch.setattr(server.app.worker, "submit", watched)
    asking = threading.Thread(target=lambda: server.post("/v1/completions", body))
    asking.start()
    until(lambda: jobs)
    assert metrics(server)["waiting_tokens"] == len(first) + len(second)
    gate.set()
    asking.join(60)
    assert [tokens for _, tokens in seen] == sorted((t for _, t in seen), reverse=True)
    deltas = {tokens for name, tokens in seen if name == "Delta"}
    assert deltas == {len(second), 0}
    assert metrics(server)["waiting_tokens"] == 0


def test_memory_in_use_is_a_share_of_the_budget(server: Local) -> None:
    server.ask()
    now = metrics(server)
    assert 0 < now["memory_usage_ratio"] == now["memory_bytes"] / now["memory_budget_bytes"]
