"""What goes over the wire: UTF-8 that says so, events that no reader cuts, prompts that fit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from inf_llm.serve.jobs import Begun, Delta, Told
from tests.serve.inprocess import CHAT, Local, local, streamed

SAID = "a\x85b\u2028c\u2029d \x0b\x0c\x1c\x1d\x1e\r\n 你好 \U0001f600 é"
MOST = 300


@pytest.fixture(scope="module")
def server() -> Iterator[Local]:
    with local() as running:
        yield running


@pytest.fixture(params=["suffix", "middle"], scope="module")
def cutting(request: pytest.FixtureRequest) -> Iterator[Local]:
    with local(MOST, request.param, answer_tokens=16) as running:
        yield running


@pytest.fixture(scope="module")
def strict() -> Iterator[Local]:
    with local(MOST, answer_tokens=16) as running:
        yield running


def test_every_answer_with_text_says_that_it_is_utf_8(server: Local) -> None:
    for method, path in [
        ("GET", "/"),
        ("GET", "/health"),
        ("GET", "/metrics"),
        ("GET", "/v1/models"),
    ]:
        assert "charset=utf-8" in server.request(method, path).headers["content-type"]
    for reply in (
        server.ask(max_tokens=1),
        server.ask(max_tokens=1, stream=True),
        server.post("/v1/documents", {"text": "A text.", "stream": True}),
        server.post("/v1/documents", {"text": "A text."}),
        server.request("GET", "/v1/nothing"),
        server.post(CHAT, {}),
    ):
        kind, _, rest = reply.headers["content-type"].partition(";")
        assert kind in ("application/json", "text/event-stream")
        assert rest.strip() == "charset=utf-8"


def test_no_separator_of_lines_cuts_an_event(server: Local, monkeypatch: Any) -> None:
    def answer(question: Any, document: Any, job: Any) -> Told:
        job.emit(Begun(0))
        for letter in SAID:
            job.emit(Delta(letter))
        job.emit(Delta(SAID))
        return Told(2 * SAID, "stop", 1, 0, 1, 0, 0.0, [{"text": SAID}])

    monkeypatch.setattr(server.app.engine, "answer", answer)
    events = streamed(server.ask(stream=True))
    text = "".join(event["choices"][0]["delta"].get("content") or "" for event in events)
    assert text == 2 * SAID
    assert events[-1]["recalled"] == [{"text": SAID}]
    whole = server.ask()
    assert len(whole.text.splitlines()) == 1
    assert whole.json()["choices"][0]["message"]["content"] == 2 * SAID
    assert "你好" in whole.text


def test_an_answer_has_what_room_is_left(strict: Local) -> None:
    for more in ({"max_tokens": 1000}, {}):
        body = strict.ask("x" * (MOST - 5), **more).json()
        assert body["usage"]["prompt_tokens"] == MOST - 5
        assert body["usage"]["completion_tokens"] == 5
        assert body["choices"][0]["finish_reason"] == "length"
        assert body["usage"]["prompt_tokens_details"]["cut_tokens"] == 0


def test_a_prompt_that_may_not_be_cut_is_refused(strict: Local) -> None:
    reply = strict.ask("x" * MOST, max_tokens=1)
    assert reply.status_code == 400
    error = reply.json()["error"]
    assert error["code"] == "context_length_exceeded"
    assert f"{MOST:,} tokens" in error["message"]
    assert f"{MOST - 1:,}" in error["message"]


@pytest.mark.parametrize("length", [MOST - 3, MOST, 5 * MOST])
def test_a_prompt_that_was_cut_is_told_and_leaves_room(cutting: Local, length: int) -> None:
    for more, answer in (({}, 16), ({"max_tokens": 1000}, 16), ({"max_tokens": 4}, 4)):
        reply = cutting.ask("x" * length, **more)
        usage = reply.json()["usage"]
        left_out = length - (MOST - answer)
        if left_out <= 0:
            assert "x-inf-llm-cut-tokens" not in reply.headers
            continue
        assert usage["prompt_tokens"] == MOST - answer
        assert usage["completion_tokens"] == answer
        assert usage["prompt_tokens_details"]["cut_tokens"] == left_out
        assert reply.headers["x-inf-llm-cut-tokens"] == str(left_out)
        stream = cutting.ask("x" * length, stream=True, **more)
        assert stream.headers["x-inf-llm-cut-tokens"] == str(left_out)


def test_max_tokens_alone_never_cuts_a_prompt(cutting: Local) -> None:
    reply = cutting.ask("x" * 150, max_tokens=10_000)
    assert reply.json()["usage"]["prompt_tokens"] == 150
    assert reply.json()["usage"]["completion_tokens"] == MOST - 150


def test_a_document_that_was_cut_is_told(cutting: Local) -> None:
    whole = cutting.post("/v1/documents", {"text": "y" * 100}).json()
    assert (whole["tokens"], whole["cut_tokens"]) == (100, 0)
    cut = cutting.post("/v1/documents", {"text": "y" * 1000}).json()
    assert 0 < cut["cut_tokens"] == 1000 - cut["tokens"]
    assert cutting.request("GET", f"/v1/documents/{cut['id']}").json() == cut


def test_a_temperature_of_next_to_nothing_is_greedy(server: Local) -> None:
    said = server.ask(max_tokens=6).json()["choices"]
    for temperature in (5e-324, 1e-300, 1e-38, 1e-6):
        assert server.ask(max_tokens=6, temperature=temperature).json()["choices"] == said
    assert server.ask(max_tokens=6, temperature=1e-5).status_code == 200
