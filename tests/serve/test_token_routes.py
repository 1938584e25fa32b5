"""Tokens of prompts: those that the model gets, and back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.serve.inprocess import Local, local

HELLO = [{"role": "user", "content": "Hello"}]


@pytest.fixture(scope="module")
def near() -> Iterator[Local]:
    with local(500, answer_tokens=2) as running:
        yield running


def _tokens(near: Local, **body: Any) -> dict[str, Any]:
    reply = near.post("/tokenize", body)
    assert reply.status_code == 200, reply.text
    return reply.json()


def test_counts_are_those_of_the_prompt_that_is_answered(near: Local) -> None:
    for fields, path in (
        ({"messages": HELLO}, "/v1/chat/completions"),
        ({"prompt": "Once <s> upon"}, "/v1/completions"),
        ({"prompt": [5, 6, 7]}, "/v1/completions"),
        ({"messages": [*HELLO, {"role": "assistant", "content": "He"}]}, "/v1/chat/completions"),
    ):
        found = _tokens(near, **fields)
        body = near.post(path, {"model": near.model, **fields}).json()
        assert found["count"] == len(found["tokens"]) == body["usage"]["prompt_tokens"]
        assert found["max_model_len"] == 500


def test_tokens_come_back_as_text(near: Local) -> None:
    for text in ("Hello 你好\n", "<s>", ""):
        ids = _tokens(near, prompt=text, add_special_tokens=False)["tokens"]
        assert near.post("/detokenize", {"tokens": ids}).json() == {"prompt": text}
    assert _tokens(near, prompt="ab", return_token_strs=True)["token_strs"][-2:] == ["a", "b"]


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/tokenize", {}, "prompt"),
        ("/tokenize", {"prompt": 5}, "prompt"),
        ("/tokenize", {"prompt": "x", "messages": HELLO}, "prompt"),
        (
            "/tokenize",
            {"messages": HELLO, "continue_final_message": True},
            "continue_final_message",
        ),
        ("/tokenize", {"prompt": "x", "add_special_tokens": 1}, "add_special_tokens"),
        ("/tokenize", {"prompt": "x", "content": "y"}, "content"),
        ("/detokenize", {"tokens": [10**6]}, "tokens"),
        ("/detokenize", {"tokens": "abc"}, "tokens"),
        ("/detokenize", {"tokens": [True]}, "tokens"),
        ("/detokenize", {"tokens": [1], "model": "gpt-4"}, "model"),
    ],
)
def test_what_is_refused(near: Local, path: str, body: dict[str, Any], param: str) -> None:
    reply = near.post(path, body)
    assert reply.status_code in (400, 404)
    assert reply.json()["error"]["param"] == param
