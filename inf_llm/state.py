"""What a memory is, as data: tensors with a row per batch row, numbers, and parts with the same.

A class names its attributes once, by how they change. One walk over these names then gives copies,
checkpoints, rollbacks, other rows, sizes and what goes to files, for all classes alike.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypeVar

import torch
from torch import Tensor

_S = TypeVar("_S", bound="Stateful")
Held = Any
"""A tensor, a tuple or dictionary of tensors, or None."""


@dataclass(frozen=True)
class State:
    """A moment of an object.

    Attributes:
        tensors: by attribute; a row per batch row.
        numbers: by attribute; anything that is replaced and never changed.
        parts: of the objects that belong to it; `name.0`, `name.1` of those that are in a tuple.
    """

    tensors: Mapping[str, Held]
    numbers: Mapping[str, Any]
    parts: Mapping[str, State]


class BlockWriter(Protocol):
    """Puts sealed blocks into files, where each has a number of its own."""

    def put(self, store: Any, numbers: Tensor) -> tuple[str, Tensor]:
        """See that physical blocks of a store are in files.

        Returns:
            The name of the store there, and the numbers of the blocks, in the shape given.
        """


class BlockReader(Protocol):
    """Opens stores of sealed blocks in files."""

    def open(self, name: str, make: Callable[..., Any]) -> Any:
        """The store of that name, made by `make` when it is asked for first.

        `make` is called with the `PageShape` of its blocks, the number of query heads, the rows
        that recall at once, and the device.
        """


class Stateful:
    """An object whose state can be copied, noted, brought back, and given other rows.

    Attributes:
        fixed: names of tensors that are replaced and never changed.
        growing: names of tensors that are written only behind what the numbers say is held.
        changing: names of tensors that are changed in place.
        numbers: names of all else that belongs to the state.
        parts: names of objects of this kind, or of tuples of them, which are replaced and never
            changed; a tuple that becomes another one is among `numbers` too.
        derived: names of what follows from the state; None whenever that becomes another one.
    """

    fixed: ClassVar[tuple[str, ...]] = ()
    growing: ClassVar[tuple[str, ...]] = ()
    changing: ClassVar[tuple[str, ...]] = ()
    numbers: ClassVar[tuple[str, ...]] = ()
    parts: ClassVar[tuple[str, ...]] = ()
    derived: ClassVar[tuple[str, ...]] = ()

    def checkpoint(self) -> State:
        """The state now, for one `rollback`. It shares all tensors but those that change."""
        tensors = {name: getattr(self, name) for name in (*self.fixed, *self.growing)}
        tensors |= {name: each(torch.clone, getattr(self, name)) for name in self.changing}
        numbers = {name: getattr(self, name) for name in self.numbers}
        return State(tensors, numbers, {name: part.checkpoint() for name, part in self._parts()})

    def rollback(self, state: State) -> None:
        """Back to a checkpoint of this object."""
        for name, value in {**state.tensors, **state.numbers}.items():
            setattr(self, name, value)
        for name, part in self._parts():
            part.rollback(state.parts[name])
        self._derive_anew()

    def fork(self: _S) -> _S:
        """A copy that goes on by itself."""
        twin = copy.copy(self)
        for name in (*self.growing, *self.changing):
            setattr(twin, name, each(torch.clone, getattr(self, name)))
        for name in self.parts:
            held = getattr(self, name)
            alone = isinstance(held, Stateful)
            setattr(twin, name, held.fork() if alone else tuple(part.fork() for part in held))
        twin._derive_anew()
        return twin

    def select_rows(self, rows: Tensor) -> None:
        """Rows become the given ones (a 1-D index; rows may repeat or vanish)."""

        def chosen(tensor: Tensor) -> Tensor:
            return tensor.index_select(0, rows.to(tensor.device))

        for name in (*self.fixed, *self.growing, *self.changing):
            setattr(self, name, each(chosen, getattr(self, name)))
        for _, part in self._parts():
            part.select_rows(rows)
        self._derive_anew()

    def dump(self, blocks: BlockWriter) -> State:
        """The state as it goes to a file: plain values, and tensors without unused room."""
        tensors = {
            name: getattr(self, name) for name in (*self.fixed, *self.growing, *self.changing)
        }
        numbers = {name: getattr(self, name) for name in self.numbers if name not in self.parts}
        return State(tensors, numbers, {name: part.dump(blocks) for name, part in self._parts()})

    def restore(self, state: State, blocks: BlockReader) -> None:
        """What `dump` gave becomes the state of this object, which is as it was made."""
        for name, value in {**state.tensors, **state.numbers}.items():
            setattr(self, name, value)
        for name, part in self._parts():
            part.restore(state.parts[name], blocks)
        self._derive_anew()

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors, room included."""
        names = (*self.fixed, *self.growing, *self.changing)
        own = sum(tensor.nbytes for name in names for tensor in _flat(getattr(self, name)))
        return own + sum(part.nbytes for _, part in self._parts())

    def _parts(self) -> Iterator[tuple[str, Stateful]]:
        for name in self.parts:
            held = getattr(self, name)
            if isinstance(held, Stateful):
                yield name, held
            else:
                yield from ((f"{name}.{at}", part) for at, part in enumerate(held))

    def _derive_anew(self) -> None:
        for name in self.derived:
            setattr(self, name, None)


def each(change: Callable[[Tensor], Tensor], held: Held) -> Held:
    """The same, with every tensor changed."""
    if held is None:
        return None
    if isinstance(held, dict):
        return {key: each(change, part) for key, part in held.items()}
    if isinstance(held, tuple):
        return tuple(each(change, part) for part in held)
    return change(held)


def _flat(held: Held) -> Iterator[Tensor]:
    if isinstance(held, dict | tuple):
        for part in held.values() if isinstance(held, dict) else held:
            yield from _flat(part)
    elif held is not None:
        yield held
