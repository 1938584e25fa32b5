"""The official client against a running server: what it asks, what goes wrong, who leaves."""

from __future__ import annotations

import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import openai
import pytest

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
        time.sleep(0.05)


def test_an_answer_and_its_counts(server: Server) -> None:
    answer = ask(server, STORY, max_tokens=7)
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].finish_reason in ("stop", "length")
    assert answer.usage.completion_tokens <= 7
    assert answer.usage.prompt_tokens == len(STORY)  # a token a byte
    again = ask(server, STORY, max_tokens=7)
    assert again.choices[0].message.content == answer.choices[0].message.content
    assert again.usage.prompt_tokens_details.cached_tokens > len(STORY) - 64


def test_streaming_says_the_same(server: Server) -> None:
    whole = ask(server, STORY + "a")
    stream = ask(server, STORY + "a", stream=True, stream_options={"include_usage": True})
    chunks = list(stream)
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason
    assert chunks[0].choices[0].delta.role == "assistant"


def test_completions_of_text_and_of_tokens(server: Server) -> None:
    client = server.client()
    whole = client.completions.create(model=server.model, prompt="Once upon", max_tokens=5)
    assert whole.usage.prompt_tokens == len("Once upon")
    parts = client.completions.create(
        model=server.model, prompt=["Once upon"], max_tokens=5, stream=True
    )
    assert "".join(part.choices[0].text for part in parts) == whole.choices[0].text
    ids = client.completions.create(model=server.model, prompt=[5, 6, 7], max_tokens=2)
    assert ids.usage.prompt_tokens == 3
    with pytest.raises(openai.BadRequestError, match="ids from 0 to"):
        client.completions.create(model=server.model, prompt=[10**6])


def test_several_turns_read_only_what_is_new(server: Server) -> None:
    messages = [{"role": "user", "content": "Turns. " + STORY}]
    for turn in range(4):
        answer = server.client().chat.completions.create(model=server.model, messages=messages)
        usage = answer.usage
        if turn:
            assert usage.prompt_tokens - usage.prompt_tokens_details.cached_tokens < 200
        said = answer.choices[0].message.content.encode().decode(errors="replace")
        messages.append({"role": "assistant", "content": said})
        messages.append({"role": "user", "content": f"and then {turn}?"})


def test_sampling_is_repeated_by_its_seed(server: Server) -> None:
    asked = {"temperature": 1.5, "top_p": 0.95, "max_tokens": 12}
    first, second = (ask(server, "Draw", seed=7, **asked) for _ in range(2))
    other = ask(server, "Draw", seed=8, **asked)
    assert first.choices[0].message.content == second.choices[0].message.content
    assert other.choices[0].message.content != first.choices[0].message.content


@pytest.mark.parametrize("temperature", [0, 1e-300, 1e-40, 1e-38, 1e-6])
def test_next_to_no_temperature_is_greedy(server: Server, temperature: float) -> None:
    greedy, cold = (
        ask(server, STORY, max_tokens=8, **asked) for asked in ({}, {"temperature": temperature})
    )
    assert cold.choices[0].message.content == greedy.choices[0].message.content


def test_stop_texts_end_an_answer_and_are_no_part_of_it(server: Server) -> None:
    whole = ask(server, STORY, max_tokens=16).choices[0].message.content
    stop = whole[4:6]
    answer = ask(server, STORY, max_tokens=16, stop=[stop])
    assert answer.choices[0].message.content == whole[: whole.index(stop)]
    assert answer.choices[0].finish_reason == "stop"
    streamed = ask(server, STORY, max_tokens=16, stop=stop, stream=True)
    text = "".join(c.choices[0].delta.content or "" for c in streamed if c.choices)
    assert text == whole[: whole.index(stop)]


def test_recalled_passages_are_told(server: Server) -> None:
    answer = ask(server, STORY, extra_body={"recall": True})
    passages = answer.model_extra["recalled"]
    assert passages
    assert [p["score"] for p in passages] == sorted((p["score"] for p in passages), reverse=True)
    for passage in passages:
        assert passage["text"] == STORY[passage["start"] : passage["end"]]


def test_a_document_is_read_once_and_asked_often(server: Server) -> None:
    text = "\n \U0001f600 " + STORY.replace("best", "bést")
    client = httpx.Client(base_url=server.address, timeout=60)
    document = client.post("/v1/documents", json={"text": text, "name": "tale"}).json()
    assert document["characters"] == len(text)
    for question in ("Which times?", "What else?"):
        answer = ask(server, question, extra_body={"document": document["id"], "recall": True})
        usage = answer.usage
        assert usage.prompt_tokens_details.cached_tokens > document["tokens"] - 64
        placed = [p for p in answer.model_extra["recalled"] if p["characters"]]
        assert placed
        for passage in placed:
            start, end = passage["characters"]
            assert text[start:end] in passage["text"]
    assert client.get(f"/v1/documents/{document['id']}").json()["name"] == "tale"
    assert client.delete(f"/v1/documents/{document['id']}").json()["deleted"] is True
    with pytest.raises(openai.NotFoundError, match="upload it again"):
        ask(server, "Still there?", extra_body={"document": document["id"]})


def test_reading_a_document_tells_how_far_it_is(server: Server) -> None:
    body = {"text": STORY * 4, "stream": True}
    with httpx.stream("POST", f"{server.address}/v1/documents", json=body, timeout=60) as reply:
        lines = [line[6:] for line in reply.iter_lines() if line.startswith("data: ")]
    events = [json.loads(line) for line in lines[:-1]]
    progress = [event for event in events if event["object"] == "document.progress"]
    assert len(progress) > 3
    assert [p["read"] for p in progress] == sorted(p["read"] for p in progress)
    assert events[-1]["object"] == "document"
    assert lines[-1] == "[DONE]"


def test_eight_clients_at_once(server: Server) -> None:
    def talk(number: int) -> list[str]:
        texts = []
        for question in ("one", "two"):
            prompt = f"{number} " * 300 + question
            texts.append(ask(server, prompt, max_tokens=6).choices[0].message.content)
        return texts

    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(talk, range(8)))
    assert together == [talk(number) for number in range(8)]


def test_a_client_that_goes_away_stops_its_answer(server: Server) -> None:
    generated = metric(server, "generated_tokens_total")
    stream = ask(server, "Say much", max_tokens=100_000, stream=True)
    next(iter(stream))
    until(lambda: metric(server, "jobs_running") == 1)
    stream.close()
    until(lambda: metric(server, "jobs_running") == 0)
    assert metric(server, "generated_tokens_total") == generated
    assert ask(server, "Still there?").choices


def test_a_client_that_goes_away_without_streaming(server: Server) -> None:
    with pytest.raises(openai.APITimeoutError):
        server.client(timeout=1.0).chat.completions.create(
            model=server.model,
            messages=[{"role": "user", "content": "Say much"}],
            max_tokens=100_000,
        )
    until(lambda: metric(server, "jobs_running") == 0)


def test_half_a_request(server: Server) -> None:
    host, port = server.address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(
            b"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json"
            b'\r\nContent-Length: 1000\r\n\r\n{"model"'
        )
    assert httpx.get(f"{server.address}/health").json()["status"] == "ok"


def test_a_prompt_of_a_megabyte(server: Server) -> None:
    text = "A long way. " * (1_000_000 // 12)
    stream = ask(server, text, max_tokens=2, stream=True)
    next(iter(stream))  # it is accepted and begun; the tiny tokenizer makes a token of every byte
    stream.close()
    until(lambda: metric(server, "jobs_running") == 0)


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


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"n": 2}, "n"),
        ({"logprobs": True}, "logprobs"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"temperature": 3}, "temperature"),
        ({"top_p": -1}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"seed": "x"}, "seed"),
        ({"stop": ["a"] * 5}, "stop"),
        ({"frequency_penalty": 1}, "frequency_penalty"),
        ({"extra_body": {"attn_impl": "x"}}, "attn_impl"),
        ({"extra_body": {"document": "../../etc/passwd"}}, "document"),
    ],
)
def test_what_it_does_not_do_is_said(server: Server, more: dict[str, Any], param: str) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        ask(server, "hello", **more)
    assert caught.value.status_code in (400, 404)
    assert caught.value.body["param"] == param


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [{"role": "wizard", "content": "x"}],
        [{"role": "user", "content": 5}],
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "file:///"}}]}],
        ["hello"],
    ],
)
def test_messages_that_are_none(server: Server, messages: Any) -> None:
    with pytest.raises(openai.BadRequestError, match="messages"):
        server.client().chat.completions.create(model=server.model, messages=messages)


def test_what_asks_for_nothing_is_accepted(server: Server) -> None:
    answer = ask(server, "hi", n=1, user="me", presence_penalty=0, logprobs=False, max_tokens=1)
    assert answer.usage.completion_tokens == 1
    parts = [{"type": "text", "text": "hi"}]
    answer = server.client().chat.completions.create(
        model=server.model,
        messages=[{"role": "developer", "content": "be brief"}, {"role": "user", "content": parts}],
        max_completion_tokens=1,
    )
    assert answer.usage.completion_tokens == 1


def test_models(server: Server) -> None:
    client = server.client()
    assert [model.id for model in client.models.list()] == [server.model]
    assert client.models.retrieve(server.model).id == server.model
    with pytest.raises(openai.NotFoundError, match="tiny-model"):
        client.models.retrieve("gpt-4")
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(
            model="gpt-4", messages=[{"role": "user", "content": "hello"}]
        )
    assert caught.value.body["code"] == "model_not_found"


def test_paths_methods_and_types(server: Server) -> None:
    def status(method: str, path: str, **more: Any) -> int:
        return httpx.request(method, server.address + path, **more).status_code

    assert status("GET", "/v1/nothing") == 404
    assert status("GET", "/../../etc/passwd") == 404
    assert status("GET", "/v1/chat/completions") == 405
    assert status("POST", "/v1/chat/completions", content=b"{}") == 415
    assert status("GET", "/health", headers={"Host": "evil.example"}) == 403
    assert status("GET", "/health", headers={"Host": "localhost:1"}) == 200


def test_the_page_may_run_only_its_own_script(server: Server) -> None:
    reply = httpx.get(server.address)
    policy = reply.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'sha256-" in policy
    assert "unsafe" not in policy
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert "http://" not in reply.text.replace("http://www.w3.org/", "")
    assert "https://" not in reply.text


def test_metrics_are_what_prometheus_reads(server: Server) -> None:
    text = httpx.get(f"{server.address}/metrics").text
    for line in text.splitlines():
        assert line.startswith("#") or float(line.rpartition(" ")[2]) >= 0
    assert 'inf_llm_requests_total{route="/v1/chat/completions",status="200"}' in text
