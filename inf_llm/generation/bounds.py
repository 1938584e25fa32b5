"""Checks of JSON schemas for number bounds that llguidance does not enforce."""

from __future__ import annotations

from typing import Any

from inf_llm.errors import SettingsError

_EXCLUDED = {
    "exclusiveMinimum": ("maximum", "exclusiveMaximum"),
    "exclusiveMaximum": ("minimum", "exclusiveMinimum"),
}


def check_bounds(schema: Any) -> None:
    """Check that llguidance refuses every whole number that a schema excludes.

    llguidance accepts an excluded bound if the opposite bound is less than 1 away.

    Raises:
        SettingsError: llguidance would accept an excluded number.
        RecursionError: the schema is nested too deeply.
    """
    if isinstance(schema, list):
        for part in schema:
            check_bounds(part)
    elif isinstance(schema, dict):
        for name, others in _EXCLUDED.items():
            for other in others:
                _check(name, schema.get(name), other, schema.get(other))
        check_bounds(list(schema.values()))


def _check(name: str, excluded: Any, other: str, bound: Any) -> None:
    numbers = isinstance(excluded, (int, float)) and isinstance(bound, (int, float))
    if numbers and excluded % 1 == 0 and 0 < abs(bound - excluded) < 1:
        raise SettingsError(
            f"the schema has {name} = {excluded} and {other} = {bound}, which cannot be enforced: "
            "give bounds that are 1 or more apart, or exclude no whole number"
        )
