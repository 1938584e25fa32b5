"""What a request may say of functions, and what comes of it with any model."""

from __future__ import annotations

from typing import Any

import pytest

from inf_llm.serve.params import chat_question
from inf_llm.serve.tools import DEEPEST, NO_FUNCTIONS, Calling
from tests.serve.questions import CHAT, ODD, refused

PARAMETERS = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}


def function(name: str = "add", **more: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": PARAMETERS, **more}}


def calling(**body: Any) -> Calling:
    return chat_question(CHAT | body).functions


TOOLS = [function(), function("stop", parameters=None, strict=True, description="Stops.")]


def deep(levels: int) -> Any:
    value: Any = {}
    for _ in range(levels):
        value = {"a": value}
    return value


def test_what_is_offered_and_what_is_forced() -> None:
    parsed = calling(tools=TOOLS)
    assert [tool.name for tool in parsed.tools] == ["add", "stop"]
    assert parsed.tools[1].parameters == {"type": "object", "properties": {}}
    assert (parsed.forced, parsed.several) == ((), True)
    assert calling(tools=TOOLS, tool_choice="required").forced == parsed.tools
    named = calling(tools=TOOLS, tool_choice={"type": "function", "function": {"name": "stop"}})
    assert [tool.name for tool in named.forced] == ["stop"]
    assert named.tools == parsed.tools
    assert not named.several
    assert not calling(tools=TOOLS, parallel_tool_calls=False).several


@pytest.mark.parametrize(
    "body",
    [
        {"tools": []},
        {"tools": None},
        {"tools": TOOLS, "tool_choice": "none"},
        {"tool_choice": "auto"},
        {"tools": [{"type": "web_search"}, {"type": "custom", "custom": {"name": "x"}}]},
        {"parallel_tool_calls": False},
    ],
)
def test_nothing_to_call(body: dict[str, Any]) -> None:
    assert calling(**body) == NO_FUNCTIONS


@pytest.mark.parametrize(
    ("body", "param"),
    [
        *(({"tools": odd}, "tools") for odd in ODD if odd != [1]),
        ({"tools": TOOLS * 65}, "tools"),
        ({"tools": [1]}, "tools[0]"),
        ({"tools": [function(), function()]}, "tools"),
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"tools": [function("has space")]}, "tools[0].function.name"),
        ({"tools": [function(5)]}, "tools[0].function.name"),
        ({"tools": [function(description=5)]}, "tools[0].function.description"),
        ({"tools": [function(description="\ud800")]}, "tools[0].function.description"),
        ({"tools": [function(parameters=[])]}, "tools[0].function.parameters"),
        ({"tools": [function(parameters={"type": "string"})]}, "tools[0].function.parameters"),
        ({"tools": [function(parameters=deep(DEEPEST + 1))]}, "tools[0].function.parameters"),
        ({"tools": [function(parameters={"\0": 1})]}, "tools[0].function.parameters"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": TOOLS, "tool_choice": "must"}, "tool_choice"),
        ({"tools": TOOLS, "tool_choice": {"type": "function"}}, "tool_choice"),
        (
            {"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "x"}}},
            "tool_choice",
        ),
        ({"tools": TOOLS, "parallel_tool_calls": "no"}, "parallel_tool_calls"),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"function_call": {"name": "f"}}, "function_call"),
    ],
    ids=repr,
)
def test_what_is_refused(body: dict[str, Any], param: str) -> None:
    assert refused(body).param == param
