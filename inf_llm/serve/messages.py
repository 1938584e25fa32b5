"""Checked messages of a chat, in the form that chat templates take."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from inf_llm.checks import check_question
from inf_llm.generation.layout import Message
from inf_llm.serve.errors import bad_value, unsupported
from inf_llm.serve.tools import check_texts
from inf_llm.serve.values import check_fields, checked_text, flag, shown, wrong

CONTINUING = ("continue_final_message", "add_generation_prompt")
ROLES = ("system", "developer", "user", "assistant", "tool")
_OF_MESSAGES = {
    *("role", "content", "tool_calls", "tool_call_id"),
    # accepted without effect, as a chat template takes a role and a content
    *("id", "name", "timestamp", "annotations", "cache_control", "reasoning", "reasoning_content"),
}
_OF_PARTS = {"type", "text", "annotations", "cache_control"}


def messages_of(data: dict[str, Any], names: Sequence[str] | None = None) -> tuple[Message, ...]:
    """Parse the conversation in the body of a request.

    Args:
        data: the body.
        names: name of each message in error messages; None for `messages[0]` and so on.

    Raises:
        ApiError: a message has a field or a value that is not accepted.
    """
    given = data.get("messages")
    if not isinstance(given, list) or not given:
        raise wrong("messages", given, "a list of at least one message")
    names = names or [f"messages[{index}]" for index in range(len(given))]
    messages = [_message(*named) for named in zip(names, given, strict=True)]
    called = {c["id"]: c["function"]["name"] for m in messages for c in m.get("tool_calls", ())}
    for message in messages:
        if message.get("tool_call_id") in called:
            message["name"] = called[message["tool_call_id"]]
    return tuple(messages)


def continues(data: dict[str, Any], messages: Sequence[Message]) -> bool:
    """Return whether the answer continues the last message.

    By default an answer continues a last message of the assistant. The parameters in `CONTINUING`
    can request a separate turn instead.

    Raises:
        ApiError: these parameters contradict each other or do not fit the conversation.
    """
    last = messages[-1]
    possible = (
        last["role"] == "assistant" and last["content"].strip() != "" and "tool_calls" not in last
    )
    goes_on, begins = (data.get(name) for name in CONTINUING)
    for name in CONTINUING:
        flag(data, name)
    if goes_on and begins:
        raise bad_value(
            CONTINUING[0], "continue_final_message and add_generation_prompt exclude each other"
        )
    if possible:
        return goes_on is not False and not begins
    if goes_on or begins is False:
        name = CONTINUING[0] if goes_on else CONTINUING[1]
        raise bad_value(
            name,
            f"{name} = {shown(data[name])} needs a last message of the assistant to go on with; "
            f"that of the {last['role']} is answered",
        )
    return False


def _message(where: str, message: Any) -> Message:
    if not isinstance(message, dict):
        raise wrong(where, message, "an object with role and content")
    role = message.get("role")
    if role not in ROLES:
        raise wrong(f"{where}.role", role, f"one of {', '.join(ROLES)}")
    check_fields(where, message, _OF_MESSAGES)
    calls = _calls(f"{where}.tool_calls", message.get("tool_calls")) if role == "assistant" else []
    content = message.get("content")
    text = "" if content is None and calls else content_of(f"{where}.content", content)
    if role == "user":
        checked_text(f"{where}.content", text, check_question)
    checked: Message = {"role": "system" if role == "developer" else role, "content": text}
    if calls:
        checked["tool_calls"] = calls
    if role == "tool":
        call = message.get("tool_call_id")
        checked["tool_call_id"] = (
            "" if call is None else checked_text(f"{where}.tool_call_id", call)
        )
    return checked


def content_of(where: str, content: Any, kinds: tuple[str, ...] = ("text",)) -> str:
    """Return the text of a content: a text, or a list of parts of these kinds.

    Raises:
        ApiError: the content is something else.
    """
    if isinstance(content, str):
        return checked_text(where, content)
    if not isinstance(content, list) or not content:
        raise wrong(where, content, "a text, or a list of text parts")
    for part in content:
        if not isinstance(part, dict) or part.get("type") not in kinds:
            kind = part.get("type") if isinstance(part, dict) else part
            only = ", ".join(map(repr, kinds))
            message = f"{where} has a part of type {shown(kind)}: only {only} is supported"
            raise unsupported(where, message)
        check_fields(where, part, _OF_PARTS)
    return "".join(checked_text(where, part.get("text")) for part in content)


def _calls(where: str, given: Any) -> list[dict[str, Any]]:
    """Parse the calls of an earlier answer; arguments become values, as chat templates require."""
    if given is None:
        return []
    if not isinstance(given, list):
        raise wrong(where, given, "a list of calls")
    return [_call(f"{where}[{index}]", call) for index, call in enumerate(given)]


def _call(where: str, given: Any) -> dict[str, Any]:
    function = given.get("function") if isinstance(given, dict) else None
    if not isinstance(function, dict):
        raise wrong(where, given, "an object with id, type and function")
    name = checked_text(f"{where}.function.name", function.get("name"))
    return {
        "id": _id(f"{where}.id", given.get("id")),
        "type": "function",
        "function": {"name": name, "arguments": _arguments(where, function.get("arguments"))},
    }


def _id(where: str, given: Any) -> str:
    return "" if given is None else checked_text(where, given)


def _arguments(where: str, given: Any) -> Any:
    """Parse the arguments of a call; a text that is not a JSON object stays a text."""
    where = f"{where}.function.arguments"
    if given is None or given == "":
        return {}
    if not isinstance(given, dict):
        text = checked_text(where, given)
        try:
            read = json.loads(text)
        except (ValueError, RecursionError):
            return text
        given = read if isinstance(read, dict) else text
    check_texts(where, given)
    return given
