"""Tools, calls, and the base class of the call forms of model families."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from inf_llm.generation.closed_schema import closed
from inf_llm.generation.grammar import BOUNDED


@dataclass(frozen=True)
class Tool:
    """A function that a model may call.

    Attributes:
        name: name of the function.
        description: description of the function; "" for none.
        parameters: JSON schema of the arguments, of type object.
    """

    name: str
    description: str
    parameters: dict[str, Any]

    @property
    def described(self) -> dict[str, Any]:
        """The tool in the form that chat templates take."""
        function = {"name": self.name, "description": self.description}
        return {"type": "function", "function": {**function, "parameters": self.parameters}}

    @property
    def schema(self) -> dict[str, Any]:
        """JSON schema that a grammar enforces on the arguments."""
        return {**closed(self.parameters), "x-guidance": BOUNDED}


@dataclass(frozen=True)
class Call:
    """A function call in the answer of a model.

    Attributes:
        name: name of the function.
        arguments: the arguments, a JSON object as text.
    """

    name: str
    arguments: str


class CallForm(ABC):
    """The form in which a family of models writes calls.

    Attributes:
        marks: texts that identify the chat template of the family; one of them is enough.
        opens: texts that begin a call and nothing else.
        tokens: texts of the form that may be control tokens.
        several: whether an answer may have more than one call.
    """

    marks: tuple[str, ...] = ()
    opens: tuple[str, ...] = ()
    tokens: tuple[str, ...] = ()
    several = True

    @abstractmethod
    def calls(self, text: str) -> list[Any] | None:
        """Return the JSON values of the calls in an answer, from the first of `opens` on.

        None if the text does not have this form. `call_of` converts the values to calls.
        """

    @abstractmethod
    def rules(self, tools: Sequence[Tool], several: bool, piece: Callable[[str], str]) -> str:
        """Return grammar rules in Lark's notation; rule `calls` is an answer that calls the tools.

        Args:
            tools: the tools that may be called.
            several: whether more than one call is accepted.
            piece: `Grammars.lark_piece`.
        """


def call_of(value: Any, names: Sequence[str]) -> Call | None:
    """Return the call of a JSON value with a name and arguments; None for any other value.

    The name must be one of `names`.
    """
    if not isinstance(value, dict) or value.get("name") not in names:
        return None
    given = value.get("arguments", value.get("parameters"))
    if isinstance(given, str):
        given = next(iter(values(given) or ()), given)
    if not isinstance(given, dict):
        return None
    return Call(value["name"], json.dumps(given, ensure_ascii=False))


def values(text: str) -> list[Any] | None:
    """Return the JSON values of a text, separated by white space, commas or semicolons.

    None if the text contains anything else.
    """
    return None if None in (found := list(_values(text))) else found


def _values(text: str) -> Iterator[Any]:
    decoder, at = json.JSONDecoder(), 0
    while at < len(text):
        if text[at] in " \t\r\n,;":
            at += 1
            continue
        try:
            value, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            yield None
            return
        yield value


def call_rules(tools: Sequence[Tool], arguments: str = "arguments") -> str:
    """Return grammar rules in which `call` is a JSON object with a tool's name and arguments."""
    rows = ["call: " + " | ".join(f"call_{index}" for index in range(len(tools)))]
    for index, tool in enumerate(tools):
        begin = f'{{"name": {json.dumps(tool.name)}, "{arguments}": '
        rows.append(f'call_{index}: {json.dumps(begin)} arguments_{index} "}}"')
        rows.append(f"arguments_{index}: %json {json.dumps(tool.schema)}")
    return "\n".join(rows)
