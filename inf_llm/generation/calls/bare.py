"""The call form of plain JSON objects, for models whose chat template does not handle functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from inf_llm.generation.calls.base import CallForm, Tool, call_rules, values


class Bare(CallForm):
    """`{"name": ..., "arguments": {...}}`, one object and one line for each call."""

    def calls(self, text: str) -> list[Any] | None:
        """See `CallForm`."""
        return values(text)

    def rules(self, tools: Sequence[Tool], several: bool, piece: Callable[[str], str]) -> str:
        """See `CallForm`."""
        more = ' ("\\n" call)*' if several else ""
        return "\n".join([f"calls: call{more}", call_rules(tools)])
