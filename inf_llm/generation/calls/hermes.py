"""The call form of Hermes, Qwen 2.5, Qwen 3 and others: JSON objects in tags."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from inf_llm.generation.calls.base import CallForm, Tool, call_rules, values

_OPEN, _CLOSE = "<tool_call>", "</tool_call>"


class Hermes(CallForm):
    """`<tool_call>{"name": ..., "arguments": {...}}</tool_call>`, one pair of tags a call."""

    marks = opens = (_OPEN,)
    tokens = (_OPEN, _CLOSE)

    def calls(self, text: str) -> list[Any] | None:
        """See `CallForm`; the last closing tag may be missing."""
        return values(text.replace(_OPEN, " ").replace(_CLOSE, " "))

    def rules(self, tools: Sequence[Tool], several: bool, piece: Callable[[str], str]) -> str:
        """See `CallForm`."""
        more = ' ("\\n" tagged)*' if several else ""
        tagged = f'tagged: {piece(_OPEN)} "\\n" call "\\n" {piece(_CLOSE)}'
        return "\n".join([f"calls: tagged{more}", tagged, call_rules(tools)])
