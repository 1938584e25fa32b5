"""The call form of Mistral: after a control token a list of JSON objects, or name and arguments."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from inf_llm.generation.calls.base import CallForm, Tool, call_rules, values

_MARK, _ARGUMENTS = "[TOOL_CALLS]", "[ARGS]"
_NAMED = re.compile(r"\s*([\w.-]+)\s*(?:\[ARGS\])?\s*(\{.*)", re.DOTALL)


class Mistral(CallForm):
    """`[TOOL_CALLS][{"name": ..., "arguments": {...}}, ...]` for all calls of an answer.

    Newer models write `[TOOL_CALLS]name[ARGS]{...}` for each call.
    """

    marks = opens = (_MARK,)
    tokens = (_MARK, _ARGUMENTS)

    def calls(self, text: str) -> list[Any] | None:
        """See `CallForm`."""
        calls: list[Any] = []
        for part in text.split(_MARK)[1:]:
            named = _NAMED.fullmatch(part)
            given = values(named[2] if named else part)
            if not given:
                return None
            if named:
                calls.append({"name": named[1], "arguments": given[0]})
            else:
                calls += given[0] if isinstance(given[0], list) else given
        return calls

    def rules(self, tools: Sequence[Tool], several: bool, piece: Callable[[str], str]) -> str:
        """See `CallForm`."""
        more = ' (", " call)*' if several else ""
        calls = f'calls: {piece(_MARK)} "[" call{more} "]"'
        return "\n".join([calls, call_rules(tools)])
