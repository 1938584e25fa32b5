"""Parameters of a request about functions that the model may call."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from inf_llm.generation.calls import Tool
from inf_llm.serve.errors import bad_value
from inf_llm.serve.values import checked_text, flag, wrong

MAX_TOOLS = 128
DEEPEST = 64
"""Most levels of nesting in a schema or in arguments."""
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,128}")
_CHOICES = (
    '"auto", "none", "required", or {"type": "function", "function": {"name": NAME}} with the name '
    "of one of tools"
)


@dataclass(frozen=True)
class Calling:
    """The functions of a request.

    Attributes:
        tools: functions that the model may call; empty for none.
        forced: functions of which the model must call one; empty if it need not call any.
        several: whether the model may make more than one call.
    """

    tools: tuple[Tool, ...] = ()
    forced: tuple[Tool, ...] = ()
    several: bool = True


NO_FUNCTIONS = Calling()


def calling(data: dict[str, Any]) -> Calling:
    """Parse the functions of a request.

    Tools of types other than function are skipped, as a model is never required to use a tool.

    Raises:
        ApiError: a tool or the tool choice is not accepted.
    """
    given = data.get("tools")
    if given is not None and (not isinstance(given, list) or len(given) > MAX_TOOLS):
        raise wrong("tools", given, f"a list of at most {MAX_TOOLS} functions")
    read = [_tool(f"tools[{index}]", tool) for index, tool in enumerate(given or ())]
    tools = tuple(tool for tool in read if tool is not None)
    names = [tool.name for tool in tools]
    if len(set(names)) < len(names):
        raise bad_value("tools", "tools must have different names")
    several = flag(data, "parallel_tool_calls") or data.get("parallel_tool_calls") is None
    return _chosen(tools, data.get("tool_choice"), several)


def _chosen(tools: tuple[Tool, ...], choice: Any, several: bool) -> Calling:
    if choice == "none" or (not tools and choice in (None, "auto")):
        return NO_FUNCTIONS
    if choice is None or choice == "auto":
        return Calling(tools, (), several)
    if choice in ("required", "any"):
        if not tools:
            raise wrong("tool_choice", choice, "it with tools, for there are none")
        return Calling(tools, tools, several)
    name = _named(choice)
    forced = tuple(tool for tool in tools if tool.name == name)
    if name is None or not forced:
        raise wrong("tool_choice", choice, _CHOICES)
    return Calling(tools, forced, False)


def _named(choice: Any) -> Any:
    """Return the function name in a tool choice, in the form of chats or of /v1/responses."""
    if not isinstance(choice, dict) or choice.get("type") != "function":
        return None
    function = choice.get("function")
    return function.get("name") if isinstance(function, dict) else choice.get("name")


def _tool(where: str, given: Any) -> Tool | None:
    if not isinstance(given, dict) or not isinstance(given.get("type"), str):
        raise wrong(where, given, "an object with type and function")
    if given["type"] != "function":
        return None
    function = given.get("function")
    if not isinstance(function, dict):
        raise wrong(f"{where}.function", function, "an object with name and parameters")
    where = f"{where}.function"
    name, about = function.get("name"), function.get("description")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise wrong(f"{where}.name", name, "1 to 128 letters, digits, '_', '-' or '.'")
    parameters = function.get("parameters")
    parameters = {} if parameters is None else parameters
    if not isinstance(parameters, dict) or parameters.get("type", "object") != "object":
        raise wrong(f"{where}.parameters", parameters, "a JSON schema of an object")
    about = "" if about is None else checked_text(f"{where}.description", about)
    check_texts(f"{where}.parameters", parameters)
    return Tool(name, about, {"type": "object", "properties": {}, **parameters})


def check_texts(where: str, value: Any) -> None:
    """Check that all texts in a value can be encoded and that its nesting is not too deep.

    Raises:
        ApiError: a text cannot be encoded, or there are more than `DEEPEST` levels.
    """
    level = [value]
    for _ in range(DEEPEST):
        inner: list[Any] = []
        for one in level:
            if isinstance(one, dict):
                inner += [*one.keys(), *one.values()]
            elif isinstance(one, list):
                inner += one
            elif isinstance(one, str):
                checked_text(where, one)
        level = inner
        if not level:
            return
    raise bad_value(where, f"{where} must have at most {DEEPEST} levels")
