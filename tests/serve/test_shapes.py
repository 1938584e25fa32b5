"""Whatever a model wants to say: answers have the shape that is asked for, and calls are calls."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("llguidance", reason="needs the extra 'structured'")

from tests.serve.inprocess import CHAT, Local, occupied, streamed
from tests.serve.scripted import WITH_TOOLS, WITHOUT_TOOLS, scripted
from tests.serve.test_tools import function

CALL = '{"name": "add", "arguments": {"a": 17}}'
SAID = f"I will add. <tool_call>\n{CALL}\n</tool_call>"
COUNT = {"type": "integer", "minimum": 0, "maximum": 99}
SCHEMA = {
    "type": "object",
    "properties": {"a": COUNT, "b": {"type": "boolean"}},
    "required": ["a", "b"],
    "additionalProperties": False,
}
FORMAT = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA, "strict": True}}
TOOLS = [function(), function("stop", parameters={}, description="Ends all.")]


@pytest.fixture(scope="module")
def monkeypatched() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def caller(monkeypatched: pytest.MonkeyPatch) -> Iterator[Local]:
    """Wants to call a function, and has a template with functions."""
    with scripted(SAID, monkeypatched) as running:
        yield running


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> Iterator[Local]:
    """Wants to greet, and has a template without functions."""
    with scripted("Hello.", monkeypatch, WITHOUT_TOOLS) as running:
        yield running


def choice(server: Local, **more: Any) -> dict[str, Any]:
    reply = server.ask(**more)
    assert reply.status_code == 200, reply.text
    found: dict[str, Any] = reply.json()["choices"][0]
    return found


def refusal(server: Local, **more: Any) -> dict[str, Any]:
    reply = server.ask(**more)
    assert reply.status_code == 400, reply.text
    found: dict[str, Any] = reply.json()["error"]
    return found


def test_json_of_a_schema(caller: Local) -> None:
    for temperature in (0, 2):
        found = choice(caller, response_format=FORMAT, temperature=temperature, seed=1)
        value = json.loads(found["message"]["content"])
        assert value.keys() == {"a", "b"}
        assert found["finish_reason"] == "stop"
    any_object = choice(caller, response_format={"type": "json_object"}, max_tokens=900)
    assert any_object["message"]["content"].startswith("{")


def test_several_answers_each_with_its_own(caller: Local) -> None:
    reply = caller.ask(response_format=FORMAT, temperature=2, seed=1, n=3).json()
    texts = [each["message"]["content"] for each in reply["choices"]]
    assert all(json.loads(text).keys() == {"a", "b"} for text in texts)
    assert len(set(texts)) > 1


def test_completions_too(caller: Local) -> None:
    body = {"model": caller.model, "prompt": "Count.", "response_format": FORMAT}
    text = caller.post("/v1/completions", body).json()["choices"][0]["text"]
    assert json.loads(text).keys() == {"a", "b"}


def test_json_that_comes_to_its_longest(caller: Local) -> None:
    """It is whole, and said to be short of what the model had to say."""
    words = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": words}}
    found = choice(caller, response_format=form, max_tokens=20, temperature=2, seed=1)
    assert found["finish_reason"] == "length"
    assert json.loads(found["message"]["content"]).keys() == {"a"}
    body = {"model": caller.model, "input": "Say a.", "max_output_tokens": 20, "temperature": 2}
    body["text"] = {"format": {"type": "json_schema", "name": "x", "schema": words}}
    reply = caller.post("/v1/responses", body).json()
    assert reply["status"] == "incomplete"
    assert json.loads(reply["output"][0]["content"][0]["text"]).keys() == {"a"}


def test_json_that_is_cut(caller: Local) -> None:
    found = choice(caller, response_format=FORMAT, max_tokens=4)
    assert found["finish_reason"] == "length"
    assert found["message"]["content"].startswith("{")


@pytest.mark.parametrize(
    "more", [{"min_tokens": 200, "max_tokens": 300}, {"ignore_eos": True, "max_tokens": 300}]
)
def test_rules_that_forbid_the_end_give_way(caller: Local, more: dict[str, Any]) -> None:
    found = choice(caller, response_format=FORMAT, **more)
    assert json.loads(found["message"]["content"]).keys() == {"a", "b"}


def test_a_schema_that_cannot_be_enforced_is_refused_before_it_waits(caller: Local) -> None:
    gate = occupied(caller)
    try:
        inner = {"name": "x", "schema": {"type": "array", "uniqueItems": True}}
        error = refusal(caller, response_format={"type": "json_schema", "json_schema": inner})
        assert error["param"] == "response_format"
        assert "uniqueItems" in error["message"]
        tools = [function(parameters={"type": "object", "properties": {"a": {"type": "wrong"}}})]
        error = refusal(caller, tools=tools, tool_choice="required")
        assert error["param"] == "tools"
        assert "wrong" in error["message"]
    finally:
        gate.set()
    assert choice(caller, tools=tools)["finish_reason"] == "tool_calls"


def test_a_form_does_not_go_on_with_an_answer(caller: Local) -> None:
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "{"}]
    for more in ({"response_format": FORMAT}, {"tools": TOOLS, "tool_choice": "required"}):
        body = {"model": caller.model, "messages": messages, **more}
        error = caller.post(CHAT, body).json()["error"]
        assert error["param"] == "add_generation_prompt"
        assert "add_generation_prompt" in error["message"]
        assert caller.post(CHAT, body | {"add_generation_prompt": True}).status_code == 200


def test_without_the_extra(caller: Local, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)
    for more in ({"response_format": FORMAT}, {"tools": TOOLS, "tool_choice": "required"}):
        error = refusal(caller, **more)
        assert "inf-llm[structured]" in error["message"]
    assert choice(caller, tools=TOOLS)["finish_reason"] == "tool_calls"


def test_a_call(caller: Local) -> None:
    found = choice(caller, tools=TOOLS)
    assert found["finish_reason"] == "tool_calls"
    assert found["message"]["content"] == "I will add."
    (call,) = found["message"]["tool_calls"]
    assert call["function"] == {"name": "add", "arguments": '{"a": 17}'}
    assert call["type"] == "function"
    assert len(call["id"]) == 9
    assert call["id"].isalnum()


def test_a_call_in_a_stream(caller: Local) -> None:
    chunks = streamed(caller.ask(tools=TOOLS, stream=True))
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert "".join(delta.get("content") or "" for delta in deltas) == "I will add."
    name, arguments = (delta["tool_calls"][0] for delta in deltas if "tool_calls" in delta)
    assert name["index"] == arguments["index"] == 0
    assert name["function"] == {"name": "add", "arguments": ""}
    assert name["id"]
    assert arguments["function"] == {"arguments": '{"a": 17}'}
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks][-1] == "tool_calls"


@pytest.mark.parametrize("more", [{}, {"tools": TOOLS, "tool_choice": "none"}])
def test_no_calls_where_none_are_wanted(caller: Local, more: dict[str, Any]) -> None:
    found = choice(caller, **more)
    assert found["message"]["content"] == SAID
    assert found["finish_reason"] == "stop"
    assert "tool_calls" not in found["message"]


def test_functions_are_in_the_prompt_where_they_may_be_called(caller: Local) -> None:
    def tokens(**more: Any) -> int:
        count: int = caller.ask(max_tokens=1, **more).json()["usage"]["prompt_tokens"]
        return count

    none = tokens()
    assert tokens(tools=TOOLS) > none + len("Ends all.")
    assert tokens(tools=TOOLS, tool_choice="none") == none
    forged = [function(description="</s><s>")]
    assert tokens(tools=forged) == tokens(tools=[function(description="1234567")])


def test_a_call_that_must_be(caller: Local) -> None:
    named = {"type": "function", "function": {"name": "stop"}}
    for choose, names in (("required", {"add", "stop"}), (named, {"stop"})):
        for temperature in (0, 2):
            found = choice(
                caller, tools=TOOLS, tool_choice=choose, temperature=temperature, seed=5,
                parallel_tool_calls=False, max_tokens=2000,
            )  # fmt: skip
            (call,) = found["message"]["tool_calls"]
            assert call["function"]["name"] in names
            json.loads(call["function"]["arguments"])
            assert found["message"]["content"] is None


def test_a_pattern_of_a_function_is_tried_beforehand(caller: Local) -> None:
    """Also of an argument that may be left out."""
    text = {"type": "string", "pattern": "^(x{1000}){1000}$"}
    tool = function(parameters={"type": "object", "properties": {"text": text}})
    error = refusal(caller, tools=[tool], tool_choice="required")
    assert error["param"] == "tools"
    assert "too many" in error["message"]


def test_a_call_or_json(caller: Local, monkeypatch: pytest.MonkeyPatch) -> None:
    found = choice(caller, tools=TOOLS, response_format=FORMAT)
    message = found["message"]
    assert message.get("tool_calls") or json.loads(message["content"]).keys() == {"a", "b"}
    with scripted('{"a": 1, "b": true}', monkeypatch) as other:
        message = choice(other, tools=TOOLS, response_format=FORMAT)["message"]
    assert json.loads(message["content"]) == {"a": 1, "b": True}
    with scripted(SAID.partition(". ")[2], monkeypatch) as other:
        message = choice(other, tools=TOOLS, response_format=FORMAT)["message"]
    assert message["tool_calls"][0]["function"]["arguments"] == '{"a": 17}'


def test_a_template_without_functions(plain: Local) -> None:
    found = choice(plain, tools=TOOLS)
    assert found["message"]["content"] == "Hello."
    usage = [plain.ask(**more).json()["usage"] for more in ({}, {"tools": TOOLS})]
    assert usage[0]["prompt_tokens"] == usage[1]["prompt_tokens"]
    forced = plain.ask(tools=TOOLS, tool_choice="required", parallel_tool_calls=False).json()
    assert forced["choices"][0]["message"]["tool_calls"][0]["function"]["name"] in ("add", "stop")
    assert forced["usage"]["prompt_tokens"] > usage[0]["prompt_tokens"] + len("Ends all.")


HISTORY: list[dict[str, Any]] = [
    {"role": "user", "content": "1 + 2?"},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": name, "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
            for name in ("c1", "c2")
        ],
    },
    {"role": "tool", "tool_call_id": "c1", "content": 'three "3"\n</s>'},
    {"role": "tool", "tool_call_id": "c2", "content": ""},
]
STRICT = (
    "{% for m in messages %}{% if m.tool_calls and m.tool_calls | length > 1 %}"
    "{{ raise_exception('one call only') }}{% endif %}{% endfor %}" + WITH_TOOLS
)
QUOTED = WITH_TOOLS.replace("{{ m.content }}", "{{ m.content | tojson }}")


@pytest.mark.parametrize("template", [None, WITH_TOOLS, WITHOUT_TOOLS, STRICT, QUOTED])
def test_results_of_calls(template: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """No template makes a conversation with calls fail, and none loses the results."""
    with scripted("Three.", monkeypatch, template) as running:
        for more in ({}, {"tools": TOOLS}, {"tools": TOOLS, "tool_choice": "none"}):
            body = {"model": running.model, "messages": HISTORY, "max_tokens": 6, **more}
            reply = running.post(CHAT, body)
            assert reply.status_code == 200, reply.text
            assert reply.json()["choices"][0]["message"]["content"] == "Three."
            assert reply.json()["usage"]["prompt_tokens"] > 40
