"""What goes over the wire: UTF-8 that says so, events that no reader cuts, prompts that fit."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from inf_llm.serve.answers import Answered, Choice, Delta
from tests.serve.conftest import Server
from tests.serve.inprocess import CHAT, Local, local, streamed
from tests.serve.talk import ask

SAID = "a\x85b\u2028c\u2029d \x0b\x0c\x1c\x1d\x1e\r\n 你好 \U0001f600 é"


@pytest.fixture(scope="module")
def near() -> Iterator[Local]:
    with local() as running:
        yield running


def test_every_answer_with_text_says_that_it_is_utf_8(near: Local) -> None:
    for method, path in [
        ("GET", "/"),
        ("GET", "/health"),
        ("GET", "/metrics"),
        ("GET", "/v1/models"),
    ]:
        assert "charset=utf-8" in near.request(method, path).headers["content-type"]
    for reply in (
        near.ask(max_tokens=1),
        near.ask(max_tokens=1, stream=True),
        near.post("/v1/documents", {"text": "A text.", "stream": True}),
        near.post("/v1/documents", {"text": "A text."}),
        near.request("GET", "/v1/nothing"),
        near.post(CHAT, {}),
    ):
        kind, _, rest = reply.headers["content-type"].partition(";")
        assert kind in ("application/json", "text/event-stream")
        assert rest.strip() == "charset=utf-8"


def test_no_separator_of_lines_cuts_an_event(near: Local, monkeypatch: Any) -> None:
    def answer(question: Any, sources: Any, ready: Any, job: Any) -> Any:
        for letter in SAID:
            job.emit(Delta(0, letter))
        job.emit(Delta(0, SAID))
        choice = Choice(0, 2 * SAID, "stop", 1, [{"text": SAID}])
        job.emit(choice)
        return Answered((choice,), 1, 0, 0, 0.0)
        yield

    monkeypatch.setattr(near.app.engine, "answer", answer)
    events = streamed(near.ask(stream=True))
    text = "".join(event["choices"][0]["delta"].get("content") or "" for event in events)
    assert text == 2 * SAID
    assert events[-1]["recalled"] == [{"text": SAID}]
    whole = near.ask()
    assert len(whole.text.splitlines()) == 1
    assert whole.json()["choices"][0]["message"]["content"] == 2 * SAID
    assert "你好" in whole.text


def test_half_a_request(server: Server) -> None:
    host, port = server.address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(
            b"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json"
            b'\r\nContent-Length: 1000\r\n\r\n{"model"'
        )
    assert httpx.get(f"{server.address}/health").json()["status"] == "ok"


def test_too_much_is_refused(server: Server) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        ask(server, "x" * 3_000_000)
    assert caught.value.status_code == 413
    assert caught.value.body["code"] == "request_too_large"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", "invalid_json"),
        (b"\xff\xfe", "invalid_json"),
        (b"[1]", "invalid_json"),
        (b'{"model": NaN}', "invalid_json"),
        (b"[" * 100_000, "invalid_json"),
        (b'{"a":' * 5000 + b"1" + b"}" * 5000, None),
        (b'{"model": ' + b"9" * 5000 + b"}", None),
        (b'{"model": "tiny-model", "messages": [{"role": "user", "content": "\\ud800"}]}', None),
    ],
)
def test_bodies_that_are_no_requests(server: Server, body: bytes, code: str | None) -> None:
    reply = httpx.post(
        f"{server.address}/v1/chat/completions",
        content=body,
        headers={"content-type": "application/json"},
    )
    assert reply.status_code == 400
    error = reply.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert code in (None, error["code"])


def test_another_type_of_content_is_refused(near: Local) -> None:
    reply = near.request("POST", CHAT, content=b"{}", headers={"content-type": "text/plain"})
    assert reply.status_code == 415
    assert "application/json is accepted" in reply.json()["error"]["message"]


@pytest.mark.parametrize("number", ["1e999", "-1e999", "[1e400]", '{"a": 1e309}'])
def test_a_number_that_is_too_large_is_none(near: Local, number: str) -> None:
    """Some parameters are repeated in answers, where other readers of JSON would fail of it."""
    body = f'{{"model": "{near.model}", "input": "Hi", "max_output_tokens": 1, "metadata": %s}}'
    for value, status in ((number, 400), ("1e308", 200)):
        content, headers = body % value, {"content-type": "application/json"}
        reply = near.request("POST", "/v1/responses", content=content, headers=headers)
        assert reply.status_code == status
        assert "Infinity" not in reply.text
    assert (
        "give numbers up to 1.8e+308"
        in near.request("POST", "/v1/responses", content=body % number, headers=headers).json()[
            "error"
        ]["message"]
    )
