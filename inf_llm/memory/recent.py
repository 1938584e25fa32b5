"""A queue of the newest tokens of some rows, with several values per token, read as views.

The tokens are a slice of a buffer with unused room behind it. Appending writes into the room, and
dropping moves the start of the slice. Only when the room is used up are the remaining tokens copied
to a fresh buffer. Written values never change, except running sums, which are 0 in all unused room.
A checkpoint therefore needs only the two ends of the slice, references to the buffers, and copies
of the running sums.
"""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from inf_llm.state import BlockReader, BlockWriter, State, Stateful, each

_FIRST_CAPACITY = 256


class Recent(Stateful):
    """A queue of tokens along dimension 2, with named streams that move together.

    Args:
        capacity: size in tokens up to which the buffers grow, a little more than the most tokens
            that are kept; None where no token is dropped and the size doubles without limit.
        sums: streams of running sums, which the caller adds to while their tokens are held.
    """

    growing = ("_buffers",)
    changing = ("_totals",)
    numbers = ("_room", "_start", "_end")

    def __init__(self, capacity: int | None, sums: tuple[str, ...] = ()) -> None:
        self.capacity = capacity
        self._sums = sums
        self._room = 0
        self._buffers: dict[str, Tensor] = {}
        self._totals: dict[str, Tensor] = {}
        self._start = 0
        self._end = 0

    def __len__(self) -> int:
        return self._end - self._start

    @property
    def room(self) -> int:
        """Size of the buffers in tokens."""
        return self._room

    def __getitem__(self, stream: str) -> Tensor:
        """Return a view (B, X, len, ...) of one stream, oldest token first."""
        return self._held(self._of(stream)[stream])

    def _of(self, stream: str) -> dict[str, Tensor]:
        return self._totals if stream in self._sums else self._buffers

    def append(self, **streams: Tensor) -> None:
        """Append n tokens, with values (B, X, n, ...) for each stream; B and n are the same.

        Running sums begin at 0; of the tensors given for them, only shape and dtype are used.
        """
        count = next(iter(streams.values())).shape[2]
        if self._end + count > self._room:
            self._move(streams, len(self) + count)
        for name, values in streams.items():
            if name not in self._sums:
                self._buffers[name][:, :, self._end : self._end + count] = values
        self._end += count

    def drop(self, count: int) -> None:
        """Drop the oldest `count` tokens."""
        self._start += count

    def dump(self, blocks: BlockWriter) -> State:
        """See `Stateful.dump`."""
        state = super().dump(blocks)
        held = {name: each(self._held, getattr(self, name)) for name in state.tensors}
        return replace(state, tensors=held)

    def restore(self, state: State, blocks: BlockReader) -> None:
        """See `Stateful.restore`; buffers get their saved size, so they grow at the same times."""
        super().restore(state, blocks)
        self._buffers = each(self._roomy, self._buffers)
        self._totals = each(self._roomy, self._totals)

    def _held(self, buffer: Tensor) -> Tensor:
        return buffer[:, :, self._start : self._end]

    def _roomy(self, held: Tensor) -> Tensor:
        """Return a buffer of full size with the held tokens in place, and zeros elsewhere."""
        buffer = held.new_zeros((*held.shape[:2], self._room, *held.shape[3:]))
        self._held(buffer).copy_(held)
        return buffer

    def _move(self, streams: dict[str, Tensor], needed: int) -> None:
        """Move the held tokens to the front of fresh buffers with room for `needed` tokens."""
        doubled = max(_FIRST_CAPACITY, 2 * needed)
        room = doubled if self.capacity is None else max(needed, min(self.capacity, doubled))
        buffers: dict[str, Tensor] = {}
        totals: dict[str, Tensor] = {}
        for name, like in streams.items():
            summed = name in self._sums
            make = like.new_zeros if summed else like.new_empty
            fresh = make((*like.shape[:2], room, *like.shape[3:]))
            if len(self):
                fresh[:, :, : len(self)] = self[name]
            (totals if summed else buffers)[name] = fresh
        self._buffers, self._totals, self._room = buffers, totals, room
        self._start, self._end = 0, len(self)
