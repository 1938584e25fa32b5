"""Rules that settings, arguments and texts are checked by, each with the same words at every door.

A failure says the value, the rule and what is accepted.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import numbers
import types
import typing
from collections.abc import Callable, Iterable
from typing import Any

from inf_llm.errors import SettingsError, TextError
from inf_llm.registry import accepted

_BYTES = (bytes, bytearray, memoryview)
LARGEST = 2**31 - 1
"""No count of tokens or blocks may be larger: positions are kept as 32-bit numbers in places."""
LEAST_TEMPERATURE = 1e-5
"""Below it an answer takes the likeliest token each time: nearer than that, logits are rounding."""


def require(holds: bool, key: str, message: str) -> None:
    """Raise `SettingsError` about `key` unless the rule holds."""
    if not holds:
        raise SettingsError(message, key)


def at_least(settings: object, least: int, *keys: str) -> None:
    """Each of `keys` is a count from `least` to `LARGEST`."""
    for key in keys:
        _in_range(key, getattr(settings, key), least)


def _in_range(key: str, value: int, least: int) -> None:
    require(value >= least, key, f"{key} = {value} is too small: at least {least} is needed")
    require(value <= LARGEST, key, f"{key} = {value} is too large: at most {LARGEST} is allowed")


def count(key: str, value: Any, least: int = 1) -> int:
    """An argument that is a count from `least` to `LARGEST`, as a plain int."""
    require_type(key, value, int)
    _in_range(key, int(value), least)
    return int(value)


def number(key: str, value: Any, low: float, high: float) -> float:
    """An argument that is a number from `low` to `high`, as a plain float."""
    require_type(key, value, float)
    message = f"{key} = {value} is out of range: a number from {low:g} to {high:g} is accepted"
    require(low <= value <= high, key, message)
    return float(value)


def require_type(key: str, value: object, kind: type, optional: bool = False) -> None:
    """An argument that is a bool, an int, a finite float or a str; or None where it is optional."""
    message = mismatch(key, value, optional, kind)
    require(message is None, key, message or "")


def require_callable(key: str, value: object, *methods: str) -> None:
    """An argument that will be called, or whose methods of these names will be; or None."""
    wanted = f"an object with {' and '.join(methods)}" if methods else "a function"
    called = [getattr(value, name, None) for name in methods] if methods else [value]
    message = f"{key} = {_shown(value)} is not {wanted}, or None"
    require(value is None or all(map(callable, called)), key, message)


def check_text(what: str, text: object) -> None:
    """See that `text`, which a message calls `what`, is text that can be encoded.

    Raises:
        TextError: it is no `str`; it has half of a surrogate pair, as bytes that are not UTF-8 and
            cut JSON escapes leave behind; or a zero byte, as files that are no text do.
    """
    if not isinstance(text, str):
        hint = "; decode it first, as in data.decode()" if isinstance(text, _BYTES) else ""
        raise TextError(f"{what} must be text, not {type(text).__name__}{hint}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise TextError(
            f"{what} is not text in UTF-8 (character {error.start:,} is half of a surrogate "
            "pair): convert it to UTF-8 first"
        ) from None
    if "\0" in text:
        place = text.index("\0")
        raise TextError(f"{what} is not text: character {place:,} is a zero byte, take it out")


def check_question(what: str, text: object) -> None:
    """See that `text` asks something.

    Raises:
        TextError: it is no text (see `check_text`), or nothing but white space.
    """
    check_text(what, text)
    if not str(text).strip():
        raise TextError(f"{what} is empty: a text with more than white space is needed")


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
        require_type(key, getattr(settings, key), kind, optional)


FieldTypes = dict[str, tuple[bool, type]]
"""Per field of a dataclass: whether None is allowed, and the type otherwise."""


_hints = functools.cache(typing.get_type_hints)  # slow, and every key of a setting asks


def field_types(cls: type) -> FieldTypes:
    """The types of a dataclass's fields, as they are declared."""
    hints = _hints(cls)
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
