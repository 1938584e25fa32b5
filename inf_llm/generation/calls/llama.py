"""The call form of Llama 3.1 and later: one JSON object, after a control token or alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from inf_llm.generation.calls.base import CallForm, Tool, call_rules, values

_TAG = "<|python_tag|>"


class Llama(CallForm):
    """`{"name": ..., "parameters": {...}}`; the models write at most one call."""

    marks = (_TAG, '"parameters": ')
    opens = tokens = (_TAG,)
    several = False

    def calls(self, text: str) -> list[Any] | None:
        """See `CallForm`."""
        return values(text.replace(_TAG, " "))

    def rules(self, tools: Sequence[Tool], several: bool, piece: Callable[[str], str]) -> str:
        """See `CallForm`."""
        return "\n".join(["calls: call", call_rules(tools, "parameters")])
