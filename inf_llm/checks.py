"""Rules that settings are checked by; a failure says the value, the rule and what is accepted."""

from __future__ import annotations

import dataclasses
import math
import numbers
import types
import typing
from collections.abc import Callable, Iterable
from typing import Any

from inf_llm.errors import SettingsError
from inf_llm.registry import accepted

LARGEST = 2**31 - 1
"""No count of tokens or blocks may be larger: positions are kept as 32-bit numbers in places."""


def require(holds: bool, key: str, message: str) -> None:
    """Raise `SettingsError` about `key` unless the rule holds."""
    if not holds:
        raise SettingsError(message, key)


def at_least(settings: object, least: int, *keys: str) -> None:
    """Each of `keys` is a count from `least` to `LARGEST`."""
    for key in keys:
        value = getattr(settings, key)
        require(value >= least, key, f"{key} = {value} is too small: at least {least} is needed")
        require(
            value <= LARGEST, key, f"{key} = {value} is too large: at most {LARGEST} is allowed"
        )


def one_of(settings: object, key: str, names: Iterable[str]) -> None:
    """The value of `key` is one of `names`; the message names the nearest."""
    value, names = getattr(settings, key), tuple(names)
    message = f"{key} = {value!r} is not known; {accepted(str(value), names)}"
    require(value in names, key, message)


def typed(settings: object) -> None:
    """Every field of a dataclass instance has a value of the type that it declares.

    Python itself would take ``topk="16"`` or ``n_local=True`` and fail much later, elsewhere.
    """
    for key, (optional, kind) in field_types(type(settings)).items():
        type_error = mismatch(key, getattr(settings, key), optional, kind)
        require(type_error is None, key, type_error or "")


FieldTypes = dict[str, tuple[bool, type]]
"""Per field of a dataclass: whether None is allowed, and the type otherwise."""


def field_types(cls: type) -> FieldTypes:
    """The types of a dataclass's fields, as they are declared."""
    hints = typing.get_type_hints(cls)
    return {field.name: _split_optional(hints[field.name]) for field in dataclasses.fields(cls)}


def _split_optional(hint: Any) -> tuple[bool, type]:
    if typing.get_origin(hint) not in (typing.Union, types.UnionType):
        return False, hint
    kinds = [kind for kind in typing.get_args(hint) if kind is not types.NoneType]
    return len(kinds) < len(typing.get_args(hint)), kinds[0]


def mismatch(key: str, value: object, optional: bool, kind: type) -> str | None:
    """Why `value` is not of type `kind`, as a message; None where it is, or no rule is known."""
    if value is None and optional:
        return None
    if kind not in _KINDS:
        return None
    fits, wanted = _KINDS[kind]
    if fits(value):
        return None
    note = " (it is text)" if isinstance(value, str) else ""
    return f"{key} = {_shown(value)} is not {wanted}{' or null' if optional else ''}{note}"


def _is_whole(value: object) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _is_finite(value: object) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)


_KINDS: dict[type, tuple[Callable[[object], bool], str]] = {
    bool: (lambda value: isinstance(value, bool), "true or false"),
    int: (_is_whole, "a whole number"),
    float: (_is_finite, "a finite number"),
    str: (lambda value: isinstance(value, str), "text"),
}


def _shown(value: object) -> str:
    """As YAML spells it, cut where it is long."""
    if value is None:
        return "null"
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
