"""Plain values and tensors, to JSON and back."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from inf_llm.errors import SavedMemoryError, UnsupportedInputError
from inf_llm.saved.tree import pack, unpack
from inf_llm.state import State

CPU = torch.device("cpu")
TENSORS = st.builds(
    lambda shape, dtype: (torch.arange(math.prod(shape)) % 2).to(dtype).view(shape),
    st.lists(st.integers(0, 3), max_size=3),
    st.sampled_from([torch.float32, torch.bfloat16, torch.int64, torch.bool]),
)
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | TENSORS
    | st.sampled_from([torch.float16, torch.int8, CPU])
)


def _nested(inner: Any) -> Any:
    names = st.dictionaries(st.text(max_size=3), inner, max_size=3)
    return (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3)
        | st.builds(State, names, names, names)
    )


def same(one: Any, other: Any) -> bool:
    """Whether two values are equal, of the same types, and bit by bit where they are tensors."""
    if type(one) is not type(other):
        return False
    if isinstance(one, Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, State):
        return same(vars(one), vars(other))
    if isinstance(one, dict):
        return list(one) == list(other) and same(list(one.values()), list(other.values()))
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other or (one != one and other != other)


@settings(max_examples=100, deadline=None)
@given(st.recursive(LEAVES, _nested, max_leaves=12))
def test_what_is_packed_comes_back(value: Any) -> None:
    tensors: dict[str, Tensor] = {}
    text = json.dumps(pack(value, tensors), allow_nan=False)
    assert same(unpack(json.loads(text), tensors, CPU), value)


@pytest.mark.parametrize(
    ("one", "other"),
    [((1,), [1]), (1, True), (torch.zeros(2), torch.zeros(2).half()), ({1: 2}, {"1": 2})],
)
def test_control_what_differs_is_seen(one: Any, other: Any) -> None:
    assert not same(one, other)


def test_tensors_are_copies() -> None:
    held = torch.zeros(3)
    tensors: dict[str, Tensor] = {}
    unpack(pack([held], tensors), tensors, CPU)[0].add_(1)
    assert torch.equal(held, torch.zeros(3))


@pytest.mark.parametrize("value", [object(), {1, 2}, b"x", 1j, [lambda: 0], {(1, 2): 3}, {None: 1}])
def test_other_things_cannot_be_saved(value: Any) -> None:
    with pytest.raises(UnsupportedInputError, match="cannot be saved with a memory"):
        pack(value, {})


@pytest.mark.parametrize(
    "packed",
    [
        {},
        {"tuple": [], "dict": []},
        {"code": "1"},
        {"dtype": "nn"},
        {"dtype": "load"},
        {"dtype": "no such"},
        {"dtype": 3},
        {"tensor": "0"},
        {"tensor": ["0"]},
        {"dict": [["key"]]},
        {"dict": [[[], 1]]},
        {"state": [1]},
        {"float": "x"},
        {"tuple": 3},
    ],
)
def test_what_pack_does_not_make_is_refused(packed: Any) -> None:
    with pytest.raises(SavedMemoryError, match="cannot be read"):
        unpack(packed, {}, CPU)


def test_what_is_nested_without_end_is_refused() -> None:
    packed: Any = 0
    for _ in range(5000):
        packed = {"tuple": [packed]}
    with pytest.raises(SavedMemoryError, match="cannot be read"):
        unpack(packed, {}, CPU)
