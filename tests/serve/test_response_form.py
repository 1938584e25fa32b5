"""Responses: the official client understands them, whole and as events."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from openai.types.responses import Response

from tests.serve.inprocess import Local
from tests.serve.scripted import scripted
from tests.serve.test_shapes import FORMAT, SAID
from tests.serve.test_tools import PARAMETERS

TOOLS = [{"type": "function", "name": "add", "parameters": PARAMETERS}]


@pytest.fixture(scope="module")
def server() -> Iterator[Local]:
    with pytest.MonkeyPatch.context() as patch, scripted(SAID, patch) as running:
        yield running


def respond(server: Local, **more: Any) -> Any:
    return server.post("/v1/responses", {"model": server.model, "input": "1 + 2?", **more})


def events(server: Local, **more: Any) -> list[dict[str, Any]]:
    reply = respond(server, stream=True, **more)
    assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"
    found = []
    for block in reply.text.split("\n\n"):
        lines = [line for line in block.split("\n") if line and not line.startswith(":")]
        if lines:
            name, data = lines
            found.append(json.loads(data.removeprefix("data: ")))
            assert name == f"event: {found[-1]['type']}"
    assert [event["sequence_number"] for event in found] == list(range(len(found)))
    return found


def test_words(server: Local) -> None:
    response = Response.model_validate(respond(server).json())
    assert response.output_text == SAID
    assert response.status == "completed"
    assert response.usage is not None
    assert response.usage.output_tokens == len(SAID) + 1
    assert response.instructions is None


def test_words_that_are_cut(server: Local) -> None:
    response = Response.model_validate(respond(server, max_output_tokens=3).json())
    assert response.output_text == SAID[:3]
    assert response.status == "incomplete"
    assert response.incomplete_details is not None
    assert response.incomplete_details.reason == "max_output_tokens"
    assert events(server, max_output_tokens=3)[-1]["type"] == "response.incomplete"


def test_a_call(server: Local) -> None:
    message, call = Response.model_validate(respond(server, tools=TOOLS).json()).output
    assert (message.type, call.type) == ("message", "function_call")
    assert call.name == "add"
    assert json.loads(call.arguments) == {"a": 17}
    only = respond(server, tools=TOOLS, tool_choice="required", parallel_tool_calls=False).json()
    assert [item["type"] for item in only["output"]] == ["function_call"]


def test_json(server: Local) -> None:
    inner = {"type": "json_schema", **FORMAT["json_schema"]}
    text = Response.model_validate(respond(server, text={"format": inner}).json()).output_text
    assert json.loads(text).keys() == {"a", "b"}


def test_events_of_words_and_a_call(server: Local) -> None:
    found = events(server, tools=TOOLS)
    kinds = [event["type"].removeprefix("response.") for event in found]
    assert kinds[:4] == ["created", "in_progress", "output_item.added", "content_part.added"]
    last = kinds[len(kinds) - kinds[::-1].index("output_text.delta") :]
    assert last == [
        *("output_text.done", "content_part.done", "output_item.done"),
        *("output_item.added", "function_call_arguments.delta", "function_call_arguments.done"),
        *("output_item.done", "completed"),
    ]
    deltas = [event["delta"] for event in found if event["type"].endswith("output_text.delta")]
    assert "".join(deltas) == "I will add."
    assert len(deltas) > 3
    response = Response.model_validate(found[-1]["response"])
    assert response.output_text == "I will add."
    items = [event["item"] for event in found if event["type"].endswith("output_item.done")]
    assert items == found[-1]["response"]["output"]
    assert {event["output_index"] for event in found if "output_index" in event} == {0, 1}


def test_events_without_words(server: Local) -> None:
    found = events(server, tools=TOOLS, tool_choice="required", parallel_tool_calls=False)
    assert not [event for event in found if "text" in event["type"]]
    assert found[-1]["response"]["output"][0]["type"] == "function_call"


def test_a_failure_in_the_middle(server: Local, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*given: Any) -> Any:
        raise MemoryError
        yield

    monkeypatch.setattr(server.app.engine, "answer", fails)
    last = events(server)[-1]
    assert last["type"] == "response.failed"
    assert last["response"]["status"] == "failed"
    assert "memory" in last["response"]["error"]["message"]


def test_what_is_refused(server: Local) -> None:
    reply = respond(server, previous_response_id="resp_1")
    assert reply.status_code == 400
    assert reply.json()["error"]["param"] == "previous_response_id"
    assert respond(server, model="other").status_code == 404
