"""One walk over named attributes: copies, checkpoints, other rows and sizes, of any class."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from inf_llm.state import Stateful, _flat
from inf_llm.variants import ATTENTION
from tests.layers import EVERY_TYPE, feed, make_layer, random_qkv


class Part(Stateful):
    changing = ("sums",)
    numbers = ("count",)
    derived = ("mean",)

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {"a": torch.zeros(2, 1)}
        self.count = 0
        self.mean: Tensor | None = None

    def add(self, value: float) -> None:
        self.sums["a"] += value
        self.count += 1
        self.mean = self.sums["a"] / self.count


class Whole(Stateful):
    fixed = ("first",)
    growing = ("queue",)
    numbers = ("end",)
    parts = ("part",)

    def __init__(self) -> None:
        self.first: tuple[Tensor, Tensor] | None = None
        self.queue = torch.zeros(2, 9)
        self.end = 0
        self.part = Part()

    def push(self, value: float) -> None:
        if self.first is None:
            self.first = torch.full((2, 1), float(value)), torch.tensor([[0.0], [1.0]])
        self.queue[:, self.end] = value
        self.end += 1
        self.part.add(value)

    def seen(self) -> tuple[Any, ...]:
        return self.queue[0, : self.end].tolist(), self.part.sums["a"][0].item(), self.part.count


def test_a_checkpoint_is_of_its_moment() -> None:
    whole = Whole()
    before = whole.checkpoint()
    whole.push(1)
    state = whole.checkpoint()
    whole.push(2)
    whole.rollback(state)
    assert whole.seen() == ([1.0], 1.0, 1)
    assert whole.part.mean is None
    whole.push(5)
    assert whole.seen() == ([1.0, 5.0], 6.0, 2)
    whole.rollback(before)
    assert whole.first is None
    assert whole.seen() == ([], 0.0, 0)


def test_a_checkpoint_shares_what_does_not_change() -> None:
    whole = Whole()
    whole.push(1)
    state = whole.checkpoint()
    assert state.tensors["first"] is whole.first
    assert state.tensors["queue"] is whole.queue
    assert state.parts["part"].tensors["sums"]["a"] is not whole.part.sums["a"]


def test_forks_go_on_by_themselves() -> None:
    one = Whole()
    one.push(1)
    two = one.fork()
    one.push(2)
    two.push(3)
    assert one.seen() == ([1.0, 2.0], 3.0, 2)
    assert two.seen() == ([1.0, 3.0], 4.0, 2)
    assert two.first is one.first


def test_rows_and_bytes() -> None:
    whole = Whole()
    whole.push(1)
    size = whole.nbytes
    assert size == 4 * (2 + 2 + 2 * 9 + 2)
    whole.select_rows(torch.tensor([1, 1, 0]))
    assert whole.first is not None
    assert whole.first[1].flatten().tolist() == [1.0, 1.0, 0.0]
    assert whole.nbytes == size // 2 * 3
    assert whole.part.mean is None


class Several(Stateful):
    """Parts that are listed in a tuple, and become others."""

    numbers = ("members",)
    parts = ("members",)

    def __init__(self, count: int) -> None:
        self.members = tuple(Part() for _ in range(count))


def test_a_tuple_of_parts_is_walked() -> None:
    one = Several(2)
    one.members[0].add(1)
    two, state = one.fork(), one.checkpoint()
    for part in one.members:
        part.add(5)
    assert [part.count for part in two.members] == [1, 0]
    assert one.nbytes == 2 * one.members[0].nbytes
    one.members = (Part(),)
    one.rollback(state)
    assert [part.count for part in one.members] == [1, 0]
    one.select_rows(torch.tensor([0]))
    assert [len(part.sums["a"]) for part in one.members] == [1, 1]


def _tensors(value: Any) -> list[Tensor]:
    return [] if isinstance(value, str) else [x for x in _flat(value) if torch.is_tensor(x)]


def _forgotten(whole: Stateful) -> list[str]:
    """Attributes with tensors that the class does not name."""
    named = {*whole.fixed, *whole.growing, *whole.changing, *whole.derived, *whole.numbers}
    held = {k: v for k, v in vars(whole).items() if isinstance(v, Tensor | tuple | dict)}
    found = [
        f"{type(whole).__name__}.{k}" for k, v in held.items() if _tensors(v) and k not in named
    ]
    for name, part in vars(whole).items():
        if isinstance(part, Stateful):
            assert name in whole.parts, f"{type(whole).__name__}.{name} is no part"
            found += _forgotten(part)
    return found


@pytest.mark.parametrize("kind", ATTENTION.own)
def test_every_tensor_of_a_layer_is_named(kind: str) -> None:
    """Else a copy would share it, and a rollback leave it behind."""
    for more in ({}, {"topk_middle": 3}) if kind == "infinite-lm" else ({},):
        layer = make_layer(kind, **{**EVERY_TYPE[kind], **more})
        feed(layer, random_qkv(90), [70, 20])
        assert not _forgotten(layer)


def test_a_forgotten_tensor_is_found() -> None:
    whole = Whole()
    whole.part.extra = torch.zeros(3)  # type: ignore[attr-defined]
    assert _forgotten(whole) == ["Part.extra"]
