"""The input of a request to /v1/responses, a text or items, converted to chat messages."""

from __future__ import annotations

from typing import Any

from inf_llm.checks import check_question
from inf_llm.serve.errors import unsupported
from inf_llm.serve.messages import content_of
from inf_llm.serve.values import check_fields, checked_text, wrong

_PARTS = ("input_text", "output_text", "text")
_FIELDS = {
    "message": {"role", "content", "phase"},
    "function_call": {"call_id", "name", "arguments"},
    "function_call_output": {"call_id", "output"},
}
_ANY = {"type", "id", "status"}
_TYPES = ", ".join([*_FIELDS, "reasoning"])


def messages_of_items(given: Any) -> dict[str, dict[str, Any]]:
    """Convert the input to messages of a chat's body, by the name of each item.

    Roles are not checked here. Successive calls belong to one message of the assistant. Reasoning
    is left out, as chat templates leave out the reasoning of earlier answers.

    Raises:
        ApiError: an item has a field or a value that is not accepted.
    """
    if isinstance(given, str):
        content = checked_text("input", given, check_question)
        return {"input": {"role": "user", "content": content}}
    if not isinstance(given, list) or not given:
        raise wrong("input", given, "a text, or a list of at least one item")
    messages: dict[str, dict[str, Any]] = {}
    latest: dict[str, Any] = {}
    for index, item in enumerate(given):
        message = _message(f"input[{index}]", item)
        calls = message.get("tool_calls")
        if calls and latest.get("role") == "assistant":
            latest.setdefault("tool_calls", []).extend(calls)
        elif message:
            latest = messages[f"input[{index}]"] = message
    if not messages:
        raise wrong("input", given, "an item that is more than reasoning")
    return messages


def _message(where: str, item: Any) -> dict[str, Any]:
    """Convert an item to a chat message; empty for reasoning."""
    if not isinstance(item, dict):
        raise wrong(where, item, "an object")
    kind = item.get("type", "message" if "role" in item else None)
    if kind == "reasoning":
        return {}
    if not isinstance(kind, str) or kind not in _FIELDS:
        raise unsupported(f"{where}.type", f"{where}.type must be one of {_TYPES}")
    check_fields(where, item, _FIELDS[kind] | _ANY)
    if kind == "message":
        content = content_of(f"{where}.content", item.get("content"), _PARTS)
        return {"role": item.get("role"), "content": content}
    call = checked_text(f"{where}.call_id", item.get("call_id"))
    if kind == "function_call_output":
        output = content_of(f"{where}.output", item.get("output"), _PARTS)
        return {"role": "tool", "tool_call_id": call, "content": output}
    function = {
        "name": checked_text(f"{where}.name", item.get("name")),
        "arguments": checked_text(f"{where}.arguments", item.get("arguments")),
    }
    called = {"id": call, "type": "function", "function": function}
    return {"role": "assistant", "content": None, "tool_calls": [called]}
