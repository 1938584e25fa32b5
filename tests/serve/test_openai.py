"""The official client against a running server: what it asks, what goes wrong, who leaves."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest

from tests.serve.conftest import Server
from tests.serve.talk import STORY, ask


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
