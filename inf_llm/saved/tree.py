"""Conversion of nested plain values and tensors to JSON and a flat table of tensors.

JSON                        stands for
null, true, 1, 1.5, "x"     itself
{"float": "inf"}            a number that JSON cannot write: inf, -inf or nan
[...]                       a list
{"tuple": [...]}            a tuple
{"dict": [[key, value]]}    a dictionary; keys are text or whole numbers
{"tensor": "7"}             the tensor of that name
{"dtype": "float32"}        a dtype of torch
{"device": null}            a device: that on which the memory is used
{"state": [t, n, p]}        a `State`: tensors, numbers and parts
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from inf_llm.errors import SavedMemoryError, UnsupportedInputError
from inf_llm.state import State

Json = Any


def pack(value: Any, tensors: dict[str, Tensor]) -> Json:
    """Convert a value to JSON, and add its tensors to `tensors`.

    Raises:
        UnsupportedInputError: a part of the value has an unsupported type.
    """
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Tensor):
        name = str(len(tensors))
        tensors[name] = value
        return {"tensor": name}
    if isinstance(value, list):
        return [pack(part, tensors) for part in value]
    if isinstance(value, tuple):
        return {"tuple": [pack(part, tensors) for part in value]}
    if isinstance(value, Mapping):
        return {"dict": [[_key(key), pack(part, tensors)] for key, part in value.items()]}
    if isinstance(value, State):
        parts = value.tensors, value.numbers, value.parts
        return {"state": [pack(part, tensors) for part in parts]}
    if isinstance(value, torch.dtype):
        return {"dtype": str(value).removeprefix("torch.")}
    if isinstance(value, torch.device):
        return {"device": None}
    raise UnsupportedInputError(f"a {type(value).__name__} cannot be saved with a memory")


def _key(key: Any) -> str | int:
    if isinstance(key, str | int):
        return key
    raise UnsupportedInputError(f"a dictionary with the key {key!r} cannot be saved with a memory")


def unpack(packed: Json, tensors: Mapping[str, Tensor], device: torch.device) -> Any:
    """Convert JSON from `pack` back to a value, with copies of its tensors on a device.

    Raises:
        SavedMemoryError: the JSON does not have the format of `pack`.
    """
    if not isinstance(packed, dict):
        if isinstance(packed, list):
            return [unpack(part, tensors, device) for part in packed]
        return packed
    try:
        ((kind, held),) = packed.items()
        return _UNPACKED[kind](held, tensors, device)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        kind = next(iter(packed), None)
        raise SavedMemoryError(f"manifest.json: a value {kind!r} cannot be read") from error


def _dict(held: Json, tensors: Mapping[str, Tensor], device: torch.device) -> dict[Any, Any]:
    return {key: unpack(part, tensors, device) for key, part in held}


def _state(held: Json, tensors: Mapping[str, Tensor], device: torch.device) -> State:
    values, numbers, parts = (unpack(part, tensors, device) for part in held)
    return State(values, numbers, parts)


def _dtype(held: Json, *_: Any) -> torch.dtype:
    dtype = getattr(torch, held)
    if not isinstance(dtype, torch.dtype):
        raise TypeError(held)
    return dtype


_UNPACKED: dict[str, Any] = {
    "tuple": lambda held, *rest: tuple(unpack(part, *rest) for part in held),
    "dict": _dict,
    "tensor": lambda held, tensors, device: tensors[held].to(device, copy=True),
    "dtype": _dtype,
    "float": lambda held, *_: float(held),
    "device": lambda held, tensors, device: device,
    "state": _state,
}
