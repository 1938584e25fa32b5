"""The body of a request to /v1/responses, converted to a chat question."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from inf_llm.serve.answer_format import schema_of
from inf_llm.serve.errors import unsupported
from inf_llm.serve.params import CHAT_ONLY, SHARED, Question, chat_question
from inf_llm.serve.response_items import messages_of_items
from inf_llm.serve.values import check_fields, checked_text, shown, whole, wrong
from inf_llm.serve.vendors import check_names

_PASSED = (SHARED | CHAT_ONLY) - {
    *("messages", "max_tokens", "max_completion_tokens", "n", "response_format"),
    *("tools", "logprobs", "top_logprobs", "stream_options"),
}
"""Parameters with the same meaning as in a chat."""
_OWN = {"input", "instructions", "text", "max_output_tokens", "tools", "stream_options"}
_ONLY: dict[str, tuple[Any, ...]] = {
    "background": (False,),
    "truncation": ("disabled",),
    "include": ([], ["reasoning.encrypted_content"]),
    "max_tool_calls": (),
    "prompt": (),
    "top_logprobs": (0,),
}
"""Parameters of this route that are accepted with these values only, which have no effect."""
_KEPT = ("previous_response_id", "conversation")
NAMES = _PASSED | _OWN | _ONLY.keys() | set(_KEPT)


def response_question(data: dict[str, Any], thinks: bool = False) -> Question:
    """Parse the body of a request to /v1/responses.

    Args:
        data: the body.
        thinks: whether the model's chat template has a switch for reasoning.

    Raises:
        ApiError: the body has a parameter or a value that is not accepted.
    """
    check_names(data, NAMES, thinks)
    _check_absent(data)
    chat = {name: data[name] for name in _PASSED if name in data}
    messages = _messages(data)
    chat["messages"] = list(messages.values())
    chat["max_tokens"] = whole("max_output_tokens", data.get("max_output_tokens"), 1)
    chat["tools"] = _tools(data.get("tools"))
    question = chat_question(chat, thinks, list(messages))
    return replace(question, schema=_schema(data.get("text")))


def _check_absent(data: dict[str, Any]) -> None:
    for name in _KEPT:
        if data.get(name) is not None:
            raise unsupported(
                name,
                f"{name} is not supported by this server, which keeps no responses: give all "
                "items of the conversation in input; what was read before is not read again",
            )
    for name, values in _ONLY.items():
        value = data.get(name)
        if value is not None and value not in values:
            accepted = ", or ".join(["leave it out", *(f"give {shown(one)}" for one in values)])
            raise unsupported(
                name, f"{name} = {shown(value)} is not supported by this server: {accepted}"
            )


def _messages(data: dict[str, Any]) -> dict[str, dict[str, Any]]:
    instructions, first = data.get("instructions"), {}
    if instructions is not None and instructions != "":
        content = checked_text("instructions", instructions)
        first = {"instructions": {"role": "system", "content": content}}
    return first | messages_of_items(data.get("input"))


def _tools(given: Any) -> Any:
    """Convert functions to the form of chats, where the fields are one level deeper."""
    if not isinstance(given, list):
        return given
    return [
        {"type": "function", "function": tool}
        if isinstance(tool, dict) and tool.get("type") == "function" and "function" not in tool
        else tool
        for tool in given
    ]


def _schema(text: Any) -> dict[str, Any] | None:
    if text is None:
        return None
    if not isinstance(text, dict):
        raise wrong("text", text, 'an object, as {"format": {"type": "text"}}')
    if text.get("verbosity") not in (None, "medium"):
        verbosity = shown(text["verbosity"])
        raise unsupported(
            "text.verbosity",
            f"text.verbosity = {verbosity} is not supported by this server: leave it out",
        )
    check_fields("text", text, {"format", "verbosity"})
    return schema_of(text.get("format"), "text.format")
