"""Conversations with calls, rewritten for chat templates that do not handle functions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from inf_llm.conversation import BETWEEN, USER
from inf_llm.generation.calls.base import Tool

_ASK = """\
Functions can be called:
{}
To call one, answer with a JSON object and nothing else: {{"name": ..., "arguments": {{...}}}}"""


def in_words(messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the conversation without calls and tool messages.

    Calls become JSON in the text of an answer; results become text of the user.
    """
    turns: list[dict[str, Any]] = []
    for message in messages:
        role, text = message["role"], message["content"]
        if role == "tool":
            role, text = USER, f"Result of {message.get('name') or 'the call'}: {text}"
        calls = [call["function"] for call in message.get("tool_calls", ())]
        rows = [json.dumps(call, ensure_ascii=False) for call in calls]
        text = "\n".join([text, *rows] if text else rows) if rows else text
        if turns and turns[-1]["role"] == role != "system":
            turns[-1] = {"role": role, "content": turns[-1]["content"] + BETWEEN + text}
        else:
            turns.append({"role": role, "content": text})
    return turns


def with_tools(messages: Sequence[dict[str, Any]], tools: Sequence[Tool]) -> list[dict[str, Any]]:
    """Return the conversation with descriptions of the tools before the first user message."""
    rows = "\n".join(json.dumps(tool.described["function"], ensure_ascii=False) for tool in tools)
    first = next((at for at, message in enumerate(messages) if message["role"] == USER), None)
    if first is None:
        return [*messages, {"role": USER, "content": _ASK.format(rows)}]
    text = _ASK.format(rows) + BETWEEN + messages[first]["content"]
    return [*messages[:first], {**messages[first], "content": text}, *messages[first + 1 :]]
