"""Checks of parameter values in JSON: numbers, booleans and texts.

An error message names the value that was sent, the rule, and the accepted values.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from typing import Any

from inf_llm.checks import LARGEST, check_text
from inf_llm.errors import TextError
from inf_llm.serve.errors import ApiError, bad_value, unsupported

_SHOWN = 60
"""Most characters of a value in an error message."""


def shown(value: Any) -> str:
    """Return a short form of a value for an error message."""
    if isinstance(value, dict | list) and value:
        return "{...}" if isinstance(value, dict) else "[...]"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


def wrong(name: str, value: Any, wanted: str) -> ApiError:
    """Make the error for a value that is not `wanted`, for example "a number from 0 to 2"."""
    return bad_value(name, f"{name} = {shown(value)} is not accepted: give {wanted}")


def is_number(value: Any) -> bool:
    """Return whether a value is a number in JSON."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def whole(
    name: str, value: Any, least: int, most: int = LARGEST, nothing: tuple[int, ...] = ()
) -> int | None:
    """Check a whole number, written 4 or 4.0; None for null and for the values in `nothing`.

    Raises:
        ApiError: the value is something else, or out of range.
    """
    if value is None:
        return None
    fits = is_number(value)
    if fits and value in nothing:
        return None
    if not fits or not least <= value <= most or value != int(value):
        raise wrong(name, value, f"a whole number from {least} to {most}")
    return int(value)


def number(name: str, value: Any, default: float, low: float, high: float) -> float:
    """Check a number within [low, high]; the default for null.

    Raises:
        ApiError: the value is something else, or out of range.
    """
    if value is None:
        return default
    if not is_number(value) or not low <= value <= high:
        raise wrong(name, value, f"a number from {low:g} to {high:g}")
    return float(value)


def flag(data: dict[str, Any], name: str) -> bool:
    """Check a boolean parameter; false if it is absent or null.

    Raises:
        ApiError: the value is something else.
    """
    value = data.get(name)
    if value is not None and not isinstance(value, bool):
        raise wrong(name, value, "true or false")
    return bool(value)


def checked_text(where: str, value: Any, check: Callable[[str, Any], Any] = check_text) -> str:
    """Check a text with a function of `inf_llm.checks`.

    Raises:
        ApiError: the function refuses the text; the error has its message.
    """
    try:
        check(where, value)
    except TextError as error:
        raise bad_value(where, str(error)) from None
    return str(value)


def check_fields(where: str, fields: dict[str, Any], known: Collection[str]) -> None:
    """Refuse unknown fields inside a parameter, unless they are null, false, 0 or empty.

    Raises:
        ApiError: there is such a field.
    """
    for name, value in fields.items():
        if value and name not in known:
            name = f"{where}.{name}"[:100]
            raise unsupported(name, f"{name} is not supported by this server: leave it out")
