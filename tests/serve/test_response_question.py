"""What /v1/responses is asked, as a chat's question."""

from __future__ import annotations

from typing import Any

import pytest

from inf_llm.serve.errors import ApiError
from inf_llm.serve.params import chat_question
from inf_llm.serve.response_question import response_question
from tests.serve.questions import CHAT
from tests.serve.test_tools import PARAMETERS, function

ASK = {"model": "m", "input": "hello"}
SCHEMA = {"type": "object"}
ENDS_OPEN = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": '{"a":'}]


def test_the_least_is_the_same_as_a_chat() -> None:
    assert response_question(ASK) == chat_question(CHAT)


def test_parameters_are_those_of_a_chat_by_other_names() -> None:
    flat = {"type": "function", "name": "add", "parameters": PARAMETERS, "strict": True}
    question = response_question(
        ASK
        | {"instructions": "Be brief.", "max_output_tokens": 7, "temperature": 0.5, "top_p": 0.9}
        | {"tools": [flat, {"type": "web_search"}], "stream": True, "seed": 3}
        | {"tool_choice": {"type": "function", "name": "add"}, "metadata": {"a": "b"}}
        | {"text": {"format": {"type": "json_schema", "name": "x", "schema": SCHEMA}}}
        | {"store": True, "truncation": "disabled", "include": [], "background": False}
    )
    system = {"role": "system", "content": "Be brief."}
    chat = chat_question(
        CHAT
        | {"messages": [system, *CHAT["messages"]], "max_tokens": 7, "temperature": 0.5}
        | {"top_p": 0.9, "seed": 3, "stream": True, "tools": [function()]}
        | {"tool_choice": {"type": "function", "function": {"name": "add"}}}
        | {"response_format": {"type": "json_schema", "json_schema": {"schema": SCHEMA}}}
    )
    assert question == chat


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"background": True}, "background"),
        ({"truncation": "auto"}, "truncation"),
        ({"include": ["file_search_call.results"]}, "include"),
        ({"prompt": {"id": "p"}}, "prompt"),
        ({"max_tool_calls": 3}, "max_tool_calls"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"max_tokens": 5}, "max_tokens"),
        ({"messages": []}, "messages"),
        ({"n": 2}, "n"),
        ({"instructions": 5}, "instructions"),
        ({"text": 5}, "text"),
        ({"text": {"verbosity": "low"}}, "text.verbosity"),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type"),
        ({"text": {"formt": {"type": "json_object"}}}, "text.formt"),
        ({"text": {"format": {"type": "text", "schema": SCHEMA}}}, "text.format.schema"),
        (
            {"input": ENDS_OPEN, "text": {"format": {"type": "json_object"}}},
            "add_generation_prompt",
        ),
        ({"temperature": 3}, "temperature"),
        ({"input": None}, "input"),
        ({"instructions": "Hurry.", "input": [{"role": "x", "content": "a"}]}, "input[0].role"),
        ({"input": [{"role": "user", "content": " "}]}, "input[0].content"),
        ({"model": None}, "model"),
        ({"reasoning": {"effort": "high"}}, "reasoning"),
    ],
    ids=repr,
)
def test_what_is_refused(body: dict[str, Any], param: str) -> None:
    with pytest.raises(ApiError) as caught:
        response_question(ASK | body)
    assert caught.value.param == param
    assert caught.value.status == 400
