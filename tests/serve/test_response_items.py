"""Items of a conversation, as messages."""

from __future__ import annotations

from typing import Any

import pytest

from inf_llm.serve.errors import ApiError
from inf_llm.serve.response_items import messages_of_items

CALL = {"type": "function_call", "call_id": "c1", "name": "add", "arguments": "{}", "id": "fc_1"}
RESULT = {"type": "function_call_output", "call_id": "c1", "output": "3"}
SAID = {
    "type": "message",
    "id": "msg_1",
    "role": "assistant",
    "status": "completed",
    "content": [{"type": "output_text", "text": "Wait.", "annotations": [], "logprobs": []}],
}


def test_a_conversation() -> None:
    thought = {"type": "reasoning", "id": "rs_1", "summary": []}
    user = {"role": "user", "content": [{"type": "input_text", "text": "1 + "}] * 2}
    other = CALL | {"call_id": "c2"}
    named = messages_of_items([user, thought, SAID, CALL, other, RESULT, CALL])
    assert list(named) == ["input[0]", "input[2]", "input[5]", "input[6]"]
    messages = list(named.values())
    assert [message["role"] for message in messages] == ["user", "assistant", "tool", "assistant"]
    assert messages[0]["content"] == "1 + 1 + "
    assert messages[1]["content"] == "Wait."
    assert [call["id"] for call in messages[1]["tool_calls"]] == ["c1", "c2"]
    assert messages[2] == {"role": "tool", "tool_call_id": "c1", "content": "3"}
    assert messages[3]["content"] is None


@pytest.mark.parametrize(
    ("items", "param"),
    [
        (5, "input"),
        ([], "input"),
        (" ", "input"),
        ([{"type": "reasoning", "id": "rs_1", "summary": []}], "input"),
        ([5], "input[0]"),
        ([{}], "input[0].type"),
        ([{"type": "item_reference", "id": "x"}], "input[0].type"),
        ([{"type": ["message"]}], "input[0].type"),
        ([{"role": "user", "content": None}], "input[0].content"),
        ([{"role": "user", "content": [{"type": "input_image"}]}], "input[0].content"),
        ([{"role": "user", "content": "a", "images": [1]}], "input[0].images"),
        ([CALL | {"name": 5}], "input[0].name"),
        ([CALL | {"arguments": {}}], "input[0].arguments"),
        ([RESULT | {"call_id": None}], "input[0].call_id"),
        ([RESULT | {"output": 5}], "input[0].output"),
    ],
    ids=repr,
)
def test_what_is_refused(items: Any, param: str) -> None:
    with pytest.raises(ApiError) as caught:
        messages_of_items(items)
    assert caught.value.param == param
