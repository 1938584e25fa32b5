"""What a family of models has to say about its calls."""

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
        name: of it.
        description: what it does; "" for none.
        parameters: a JSON schema of its arguments, an object.
    """

    name: str
    description: str
    parameters: dict[str, Any]

    @property
    def described(self) -> dict[str, Any]:
        """In the form that chat templates take."""
        function = {"name": self.name, "description": self.description}
        return {"type": "function", "function": {**function, "parameters": self.parameters}}

    @property
    def schema(self) -> dict[str, Any]:
        """What arguments must fit, as a grammar has it."""
        return {**closed(self.parameters), "x-guidance": BOUNDED}


@dataclass(frozen=True)
class Call:
    """A call that a model makes.

    Attributes:
        name: of the function.
        arguments: a JSON object, as text.
    """

    name: str
    arguments: str


class CallForm(ABC):
    """How models of a family write calls.

    Attributes:
        marks: one of these is in a chat template of the family.
        opens: texts that only a call begins with.
        tokens: texts of the form that may be control tokens.
        several: whether an answer may have more than one call.
    """

    marks: tuple[str, ...] = ()
    opens: tuple[str, ...] = ()
    tokens: tuple[str, ...] = ()
    several = True

    @abstractmethod
    def calls(self, text: str) -> list[Any] | None:
        """The values that an answer, from the first of `opens` on, has in the place of calls.

        None where it does not have the form. `call_of` makes calls of the values.
        """

    @abstractmethod
    def rules(self, tools: Sequence[Tool], several: bool, piece: Callable[[str], str]) -> str:
        """Rules of a grammar, in Lark's notation: `calls` is an answer that calls these tools.

        Args:
            tools: that may be called.
            several: whether more than one call is accepted.
            piece: `Grammars.lark_piece`.
        """


def call_of(value: Any, names: Sequence[str]) -> Call | None:
    """A call from a value with a name and arguments; None where it is none of these functions."""
    if not isinstance(value, dict) or value.get("name") not in names:
        return None
    given = value.get("arguments", value.get("parameters"))
    if isinstance(given, str):
        given = next(iter(values(given) or ()), given)
    if not isinstance(given, dict):
        return None
    return Call(value["name"], json.dumps(given, ensure_ascii=False))


def values(text: str) -> list[Any] | None:
    """The JSON values that a text is made of, apart from what separates them; None for others."""
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
    """Rules of a grammar: `call` is a JSON object with the name and arguments of a tool."""
    rows = ["call: " + " | ".join(f"call_{index}" for index in range(len(tools)))]
    for index, tool in enumerate(tools):
        begin = f'{{"name": {json.dumps(tool.name)}, "{arguments}": '
        rows.append(f'call_{index}: {json.dumps(begin)} arguments_{index} "}}"')
        rows.append(f"arguments_{index}: %json {json.dumps(tool.schema)}")
    return "\n".join(rows)
