"""JSON objects and nothing else: of models whose chat template says nothing of functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from inf_llm.generation.calls.base import CallForm, Tool, call_rules, values


class Bare(CallForm):
    """`{"name": ..., "arguments": {...}}`, one for each call, on lines of their own."""

    def calls(self, text: str) -> list[Any] | None:
        """See `CallForm`."""
        return values(text)

    def rules(self, tools: Sequence[Tool], several: bool, piece: Callable[[str], str]) -> str:
        """See `CallForm`."""
        more = ' ("\\n" call)*' if several else ""
        return "\n".join([f"calls: call{more}", call_rules(tools)])
