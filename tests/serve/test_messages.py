"""Messages of a chat: calls of earlier answers and their results, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from inf_llm.serve.errors import ApiError
from inf_llm.serve.params import chat_question
from tests.serve.questions import CHAT
from tests.serve.test_tools import deep


def _turns(calls: Any, content: Any = None, **result: Any) -> list[dict[str, Any]]:
    answer = {"role": "assistant", "content": content, "tool_calls": calls}
    tool = {"role": "tool", "tool_call_id": "c1", "content": "3"} | result
    return [{"role": "user", "content": "1 + 2?"}, answer, tool]


def _called(arguments: Any) -> list[dict[str, Any]]:
    function = {"name": "add", "arguments": arguments}
    return [{"id": "c1", "type": "function", "function": function}]


@pytest.mark.parametrize(
    ("arguments", "read"),
    [
        ('{"a": 1}', {"a": 1}),
        ({"a": 1}, {"a": 1}),
        ("", {}),
        (None, {}),
        ("no JSON", "no JSON"),
        ("[1]", "[1]"),
        ("[" * 100_000, "[" * 100_000),
    ],
)
def test_calls_of_earlier_answers(arguments: Any, read: Any) -> None:
    messages = chat_question(CHAT | {"messages": _turns(_called(arguments))}).messages
    assert messages[1]["content"] == ""
    assert messages[1]["tool_calls"][0]["function"] == {"name": "add", "arguments": read}
    assert messages[2] == {"role": "tool", "content": "3", "tool_call_id": "c1", "name": "add"}


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        (_turns(5), "messages[1].tool_calls"),
        (_turns([{}]), "messages[1].tool_calls[0]"),
        (_turns([]), "messages[1].content"),
        (_turns([{"function": {"name": 5}}]), "messages[1].tool_calls[0].function.name"),
        (_turns(_called("\ud800")), "messages[1].tool_calls[0].function.arguments"),
        (_turns(_called({"a": "\0"})), "messages[1].tool_calls[0].function.arguments"),
        (_turns(_called(deep(70))), "messages[1].tool_calls[0].function.arguments"),
        (_turns(_called({}), tool_call_id=5), "messages[2].tool_call_id"),
        (_turns(_called({}), content=5), "messages[1].content"),
        (_turns(_called({}))[2:] and [{"role": "tool"}], "messages[0].content"),
        ([{"role": "function", "name": "f", "content": "x"}], "messages[0].role"),
    ],
)
def test_messages_that_are_none(messages: Any, param: str) -> None:
    with pytest.raises(ApiError) as caught:
        chat_question(CHAT | {"messages": messages})
    assert caught.value.param == param
    json.dumps(caught.value.body())
