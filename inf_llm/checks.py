"""Checks of settings, arguments and texts, with the same messages in every interface.

The message of a failed check gives the value, the rule and the accepted values.
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
"""The largest count of tokens or blocks: some code keeps positions as 32-bit numbers."""
MIN_TEMPERATURE = 1e-5
"""Below this temperature decoding is greedy: smaller differences of logits are rounding errors."""


def require(holds: bool, key: str, message: str) -> None:
    """Raise `SettingsError` about `key` unless the rule holds."""
    if not holds:
        raise SettingsError(message, key)


def at_least(settings: object, least: int, *keys: str) -> None:
    """Check that each setting in `keys` is a count from `least` to `LARGEST`."""
    for key in keys:
        _in_range(key, getattr(settings, key), least)


def _in_range(key: str, value: int, least: int) -> None:
    require(value >= least, key, f"{key} = {value} is too small: at least {least} is needed")
    require(value <= LARGEST, key, f"{key} = {value} is too large: at most {LARGEST} is allowed")


def count(key: str, value: Any, least: int = 1) -> int:
    """Check that an argument is a count from `least` to `LARGEST`, and return a plain int."""
    require_type(key, value, int)
    _in_range(key, int(value), least)
    return int(value)


def number(key: str, value: Any, low: float, high: float) -> float:
    """Check that an argument is a number from `low` to `high`, and return a plain float."""
    require_type(key, value, float)
    message = f"{key} = {value} is out of range: a number from {low:g} to {high:g} is accepted"
    require(low <= value <= high, key, message)
    return float(value)


def require_type(key: str, value: object, kind: type, optional: bool = False) -> None:
    """Check that an argument is a bool, an int, a finite float or a str; or None if `optional`."""
    message = mismatch(key, value, optional, kind)
    require(message is None, key, message or "")


def require_callable(key: str, value: object, *methods: str) -> None:
    """Check that an argument is callable or has all these `methods`; None is accepted too."""
    wanted = f"an object with {' and '.join(methods)}" if methods else "a function"
    called = [getattr(value, name, None) for name in methods] if methods else [value]
    message = f"{key} = {_shown(value)} is not {wanted}, or None"
    require(value is None or all(map(callable, called)), key, message)


def check_text(what: str, text: object) -> None:
    """Check that `text`, which messages call `what`, is text that can be encoded.

    Raises:
        TextError: `text` is not a `str`; it contains half of a surrogate pair, which results from
            bytes that are not UTF-8 and from cut JSON escapes; or it contains a zero byte, which is
            typical of binary files.
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
    """Check that `text` is a question that is not empty.

    Raises:
        TextError: `text` fails `check_text`, or it has only white space.
    """
    check_text(what, text)
    if not str(text).strip():
        raise TextError(f"{what} is empty: a text with more than white space is needed")


def one_of(settings: object, key: str, names: Iterable[str]) -> None:
    """Check that the value of `key` is one of `names`; the message suggests the nearest name."""
    value, names = getattr(settings, key), tuple(names)
    message = f"{key} = {value!r} is not known; {accepted(str(value), names)}"
    require(value in names, key, message)


def typed(settings: object) -> None:
    """Check that every field of a dataclass instance has a value of the declared type.

    Python itself accepts ``topk="16"`` or ``n_local=True``, and the error would come much later, in
    other code.
    """
    for key, (optional, kind) in field_types(type(settings)).items():
        require_type(key, getattr(settings, key), kind, optional)


FieldTypes = dict[str, tuple[bool, type]]
"""For each field of a dataclass: whether None is allowed, and the type of other values."""


_hints = functools.cache(typing.get_type_hints)  # cached: slow, and called for every key


def field_types(cls: type) -> FieldTypes:
    """The declared types of the fields of a dataclass."""
    hints = _hints(cls)
    return {field.name: _split_optional(hints[field.name]) for field in dataclasses.fields(cls)}


def _split_optional(hint: Any) -> tuple[bool, type]:
    if typing.get_origin(hint) not in (typing.Union, types.UnionType):
        return False, hint
    kinds = [kind for kind in typing.get_args(hint) if kind is not types.NoneType]
    return len(kinds) < len(typing.get_args(hint)), kinds[0]


def mismatch(key: str, value: object, optional: bool, kind: type) -> str | None:
    """The error message for a `value` that is not of type `kind`; None for no error or no check."""
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
    """A value in YAML notation, cut if it is longer than 60 characters."""
    if value is None:
        return "null"
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
