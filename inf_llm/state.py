"""The state of a memory as data: tensors with one row per batch row, numbers, and nested parts.

A class lists the names of its attributes once, grouped by the way they change. `Stateful` uses
these names for forks, checkpoints, rollbacks, selection of rows, sizes and files, in all classes.
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
    """The state of an object at one moment.

    Attributes:
        tensors: tensors by attribute name, with one row per batch row.
        numbers: other values by attribute name, which are replaced and never changed in place.
        parts: states of the object's parts by attribute name; `name.0`, `name.1` for parts in a
            tuple.
    """

    tensors: Mapping[str, Held]
    numbers: Mapping[str, Any]
    parts: Mapping[str, State]


class BlockWriter(Protocol):
    """Writer of sealed blocks to files, in which each block has a number."""

    def put(self, store: Any, numbers: Tensor) -> tuple[str, Tensor]:
        """Make sure that physical blocks of a store are in the files.

        Returns:
            The name of the store in the files, and the numbers of the blocks there, in the shape
            of `numbers`.
        """


class BlockReader(Protocol):
    """Reader of sealed blocks from files."""

    def open(self, name: str, make: Callable[..., Any]) -> Any:
        """Return the store of that name; the first call makes the store with `make`.

        `make` is called with the `PageShape` of the blocks, the number of query heads, the number
        of rows that recall at once, and the device.
        """


class Stateful:
    """An object with a state that supports forks, checkpoints, rollbacks and selection of rows.

    Attributes:
        fixed: names of tensors that are replaced and never changed in place.
        growing: names of tensors that are written in place only behind the part in use, whose
            bounds are among `numbers`.
        changing: names of tensors that are changed in place.
        numbers: names of all other attributes of the state.
        parts: names of `Stateful` objects or of tuples of them. A tuple is replaced and never
            changed in place; if it can be replaced, its name is in `numbers` too.
        derived: names of attributes that are computed from the state; they are set to None when the
            state is replaced.
    """

    fixed: ClassVar[tuple[str, ...]] = ()
    growing: ClassVar[tuple[str, ...]] = ()
    changing: ClassVar[tuple[str, ...]] = ()
    numbers: ClassVar[tuple[str, ...]] = ()
    parts: ClassVar[tuple[str, ...]] = ()
    derived: ClassVar[tuple[str, ...]] = ()

    def checkpoint(self) -> State:
        """Return the current state for one `rollback`; only tensors in `changing` are copied."""
        tensors = {name: getattr(self, name) for name in (*self.fixed, *self.growing)}
        tensors |= {name: each(torch.clone, getattr(self, name)) for name in self.changing}
        numbers = {name: getattr(self, name) for name in self.numbers}
        return State(tensors, numbers, {name: part.checkpoint() for name, part in self._parts()})

    def rollback(self, state: State) -> None:
        """Return to a checkpoint of this object."""
        for name, value in {**state.tensors, **state.numbers}.items():
            setattr(self, name, value)
        for name, part in self._parts():
            part.rollback(state.parts[name])
        self._derive_anew()

    def fork(self: _S) -> _S:
        """Return an independent copy."""
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
        """Replace the rows by the rows at these indexes (1-D; a row may repeat or be left out)."""

        def chosen(tensor: Tensor) -> Tensor:
            return tensor.index_select(0, rows.to(tensor.device))

        for name in (*self.fixed, *self.growing, *self.changing):
            setattr(self, name, each(chosen, getattr(self, name)))
        for _, part in self._parts():
            part.select_rows(rows)
        self._derive_anew()

    def dump(self, blocks: BlockWriter) -> State:
        """Return the state for a file: plain values, and tensors without unused capacity."""
        tensors = {
            name: getattr(self, name) for name in (*self.fixed, *self.growing, *self.changing)
        }
        numbers = {name: getattr(self, name) for name in self.numbers if name not in self.parts}
        return State(tensors, numbers, {name: part.dump(blocks) for name, part in self._parts()})

    def restore(self, state: State, blocks: BlockReader) -> None:
        """Set the state that `dump` returned, on an object that is otherwise unused."""
        for name, value in {**state.tensors, **state.numbers}.items():
            setattr(self, name, value)
        for name, part in self._parts():
            part.restore(state.parts[name], blocks)
        self._derive_anew()

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors, unused capacity included."""
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
    """Return the same structure, with `change` applied to every tensor."""
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
