"""The newest tokens of some rows, in arrival order: several values per token, read as views.

A growing tail in a buffer with room behind it. Appending writes into the room, dropping moves the
front; only when the room is used up is what is left copied to a fresh buffer. But for running
sums, nothing written is changed afterwards, so a moment's state is two numbers and the buffers they
index.
"""

from __future__ import annotations

import copy

from torch import Tensor

_FIRST_CAPACITY = 256


class Recent:
    """A queue of tokens along dimension 2, with named streams that move together.

    Args:
        capacity: room in tokens that the buffers settle at, a little more than is ever kept; None
            where nothing is dropped and the room doubles without end.
        sums: streams whose values are added to while their tokens are held.
    """

    def __init__(self, capacity: int | None, sums: tuple[str, ...] = ()) -> None:
        self._full = capacity
        self._sums = sums
        self._room = 0
        self._buffers: dict[str, Tensor] = {}
        self._start = 0
        self._end = 0

    def __len__(self) -> int:
        return self._end - self._start

    def __getitem__(self, stream: str) -> Tensor:
        """The tokens held, oldest first: a view (B, X, len, ...) of one stream."""
        return self._buffers[stream][:, :, self._start : self._end]

    def append(self, **streams: Tensor) -> None:
        """Add tokens; each stream brings (B, X, n, ...) with the same B and n every time."""
        count = next(iter(streams.values())).shape[2]
        if self._end + count > self._room:
            self._move(streams, len(self) + count)
        for name, values in streams.items():
            self._buffers[name][:, :, self._end : self._end + count] = values
        self._end += count

    def drop(self, count: int) -> None:
        """Forget the oldest `count` tokens."""
        self._start += count

    def _move(self, streams: dict[str, Tensor], needed: int) -> None:
        """Put what is held at the front of a fresh buffer with room for `needed` tokens."""
        doubled = max(_FIRST_CAPACITY, 2 * needed)
        room = doubled if self._full is None else max(needed, min(self._full, doubled))
        fresh = {}
        for name, like in streams.items():
            shape = (*like.shape[:2], room, *like.shape[3:])
            fresh[name] = like.new_empty(shape)
            if len(self):
                fresh[name][:, :, : len(self)] = self[name]
        self._buffers, self._room = fresh, room
        self._start, self._end = 0, len(self)

    def fork(self) -> Recent:
        """An independent copy of what is held now."""
        twin = copy.copy(self)
        twin._buffers = {name: buffer.clone() for name, buffer in self._buffers.items()}
        return twin

    def mark(self) -> Recent:
        """The state now, to go back to. Shares all buffers that only grow."""
        twin = copy.copy(self)
        twin._buffers = {
            name: buffer.clone() if name in self._sums else buffer
            for name, buffer in self._buffers.items()
        }
        return twin

    def select_rows(self, rows: Tensor) -> None:
        """Rows become the given ones (a 1-D index, rows may repeat or vanish)."""
        self._buffers = {
            name: buffer.index_select(0, rows.to(buffer.device))
            for name, buffer in self._buffers.items()
        }

    @property
    def nbytes(self) -> int:
        """Bytes of the buffers, room included."""
        return sum(buffer.nbytes for buffer in self._buffers.values())
