"""What an answer is made of: room, sampling, stop texts and recalled passages."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.serve.conftest import MAX_TOKENS, Server
from tests.serve.inprocess import Local
from tests.serve.talk import STORY, ask


def test_an_answer_has_what_room_is_left(strict: Local) -> None:
    for more in ({"max_tokens": 1000}, {}):
        body = strict.ask("x" * (MAX_TOKENS - 5), **more).json()
        assert body["usage"]["prompt_tokens"] == MAX_TOKENS - 5
        assert body["usage"]["completion_tokens"] == 5
        assert body["choices"][0]["finish_reason"] == "length"
        assert body["usage"]["prompt_tokens_details"]["cut_tokens"] == 0


def test_a_prompt_that_may_not_be_cut_is_refused(strict: Local) -> None:
    reply = strict.ask("x" * MAX_TOKENS, max_tokens=1)
    assert reply.status_code == 400
    error = reply.json()["error"]
    assert error["code"] == "context_length_exceeded"
    assert f"{MAX_TOKENS:,} tokens" in error["message"]
    assert f"{MAX_TOKENS - 1:,}" in error["message"]


@pytest.mark.parametrize("length", [MAX_TOKENS - 3, MAX_TOKENS, 5 * MAX_TOKENS])
def test_a_cut_prompt_is_reported_and_leaves_room(cutting: Local, length: int) -> None:
    for more, answer in (({}, 16), ({"max_tokens": 1000}, 16), ({"max_tokens": 4}, 4)):
        reply = cutting.ask("x" * length, **more)
        usage = reply.json()["usage"]
        left_out = length - (MAX_TOKENS - answer)
        if left_out <= 0:
            assert "x-inf-llm-cut-tokens" not in reply.headers
            continue
        assert usage["prompt_tokens"] == MAX_TOKENS - answer
        assert usage["completion_tokens"] == answer
        assert usage["prompt_tokens_details"]["cut_tokens"] == left_out
        assert reply.headers["x-inf-llm-cut-tokens"] == str(left_out)
        stream = cutting.ask("x" * length, stream=True, **more)
        assert stream.headers["x-inf-llm-cut-tokens"] == str(left_out)


def test_max_tokens_alone_never_cuts_a_prompt(cutting: Local) -> None:
    reply = cutting.ask("x" * 150, max_tokens=10_000)
    assert reply.json()["usage"]["prompt_tokens"] == 150
    assert reply.json()["usage"]["completion_tokens"] == MAX_TOKENS - 150


def test_an_answer_and_its_counts(server: Server) -> None:
    answer = ask(server, STORY, max_tokens=7)
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].finish_reason in ("stop", "length")
    assert answer.usage.completion_tokens <= 7
    assert answer.usage.prompt_tokens == len(STORY)  # a token a byte
    again = ask(server, STORY, max_tokens=7)
    assert again.choices[0].message.content == answer.choices[0].message.content
    assert again.usage.prompt_tokens_details.cached_tokens > len(STORY) - 64


def test_sampling_is_repeated_by_its_seed(server: Server) -> None:
    options = {"temperature": 1.5, "top_p": 0.95, "max_tokens": 12}
    first, second = (ask(server, "Draw", seed=7, **options) for _ in range(2))
    other = ask(server, "Draw", seed=8, **options)
    assert first.choices[0].message.content == second.choices[0].message.content
    assert other.choices[0].message.content != first.choices[0].message.content


@pytest.mark.parametrize("temperature", [0, 1e-300, 1e-40, 1e-38, 1e-6])
def test_next_to_no_temperature_is_greedy(server: Server, temperature: float) -> None:
    greedy, cold = (
        ask(server, STORY, max_tokens=8, **options)
        for options in ({}, {"temperature": temperature})
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


def test_clients_at_once_get_the_answers_that_they_get_alone(server: Server) -> None:
    """Sampled and greedy, with stop texts and recalled passages; lengths and ends differ."""
    requests = [
        (STORY, {"max_tokens": 30}),
        (STORY.swapcase()[:900], {"max_tokens": 17, "temperature": 1.2, "top_p": 0.9, "seed": 3}),
        ("x" * 700, {"max_tokens": 25, "temperature": 0.8, "seed": 4}),
        ("Who is there? " * 30, {"max_tokens": 30, "stop": ["e"]}),
        ("Short", {"max_tokens": 9}),
        (" ".join(map(str, range(300))), {"max_tokens": 12, "extra_body": {"recall": True}}),
    ] * 2
    alone = [ask(server, text, **more) for text, more in requests[:6]]
    with ThreadPoolExecutor(len(requests)) as clients:
        at_once = list(clients.map(lambda each: ask(server, each[0], **each[1]), requests))
    for one, both in zip(alone, zip(at_once[:6], at_once[6:], strict=True), strict=True):
        for other in both:
            assert other.choices[0].message.content == one.choices[0].message.content
            assert other.choices[0].finish_reason == one.choices[0].finish_reason
    recalled = alone[5].model_extra["recalled"]
    assert recalled
    assert at_once[5].model_extra["recalled"] == at_once[11].model_extra["recalled"] == recalled


def test_a_short_question_does_not_wait_for_a_book(server: Server) -> None:
    book = {"text": STORY * 16, "stream": True}
    url = f"{server.address}/v1/documents"
    with httpx.stream("POST", url, json=book, timeout=60) as reply:
        lines = (line for line in reply.iter_lines() if line.startswith("data: {"))
        next(lines)
        assert ask(server, "Who?", max_tokens=3).usage.completion_tokens == 3
        read, of = (json.loads(next(lines)[6:])[name] for name in ("read", "of"))
        assert read < of / 2
        assert "tokens" in json.loads(list(lines)[-1][6:])


def test_answers_go_on_while_a_book_is_read(server: Server) -> None:
    book = {"text": STORY[7:] * 12, "stream": True}
    with httpx.stream("POST", f"{server.address}/v1/documents", json=book, timeout=60) as reply:
        lines = (line for line in reply.iter_lines() if line.startswith("data: {"))
        next(lines)
        stream = ask(server, "Tell me", max_tokens=80, stream=True)
        assert sum(1 for _ in stream) > 20
        assert "tokens" in json.loads(list(lines)[-1][6:])
