"""Values of parameters: numbers, switches and texts of JSON, checked.

A message names the value that was sent, the rule, and what is accepted.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from typing import Any

from inf_llm.checks import LARGEST, check_text
from inf_llm.errors import TextError
from inf_llm.serve.errors import ApiError, bad_value, unsupported

_SHOWN = 60
"""Characters of a value that a message has."""


def shown(value: Any) -> str:
    """A value for a message, however long or deep it is."""
    if isinstance(value, dict | list) and value:
        return "{...}" if isinstance(value, dict) else "[...]"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


def wrong(name: str, value: Any, wanted: str) -> ApiError:
    """A parameter has another value than what is wanted, as "a number from 0 to 2"."""
    return bad_value(name, f"{name} = {shown(value)} is not accepted: give {wanted}")


def is_number(value: Any) -> bool:
    """Whether JSON has it as a number."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def whole(
    name: str, value: Any, least: int, most: int = LARGEST, nothing: tuple[int, ...] = ()
) -> int | None:
    """A whole number, written 4 or 4.0; None for null and for values that ask for nothing.

    Raises:
        ApiError: it is something else, or out of range.
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
    """A number within [low, high]; the default for null.

    Raises:
        ApiError: it is something else, or out of range.
    """
    if value is None:
        return default
    if not is_number(value) or not low <= value <= high:
        raise wrong(name, value, f"a number from {low:g} to {high:g}")
    return float(value)


def flag(data: dict[str, Any], name: str) -> bool:
    """A parameter that is true, or false as it is where it was left out.

    Raises:
        ApiError: it is something else.
    """
    value = data.get(name)
    if value is not None and not isinstance(value, bool):
        raise wrong(name, value, "true or false")
    return bool(value)


def checked_text(where: str, value: Any, check: Callable[[str, Any], Any] = check_text) -> str:
    """A text that a rule of `checks` accepts.

    Raises:
        ApiError: it does not, with its words.
    """
    try:
        check(where, value)
    except TextError as error:
        raise bad_value(where, str(error)) from None
    return str(value)


def check_fields(where: str, fields: dict[str, Any], known: Collection[str]) -> None:
    """Refuse fields inside a parameter that are not known, unless they are null, false or empty.

    Raises:
        ApiError: there is one.
    """
    for name, value in fields.items():
        if value and name not in known:
            name = f"{where}.{name}"[:100]
            raise unsupported(name, f"{name} is not supported by this server: leave it out")
