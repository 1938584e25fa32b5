"""A growing tensor of values per block, (V, n, ...) for n blocks, in chunks of equal length.

Growth copies at most one chunk, and a chunk may be part of a mapped file. The chunk boundaries do
not depend on the way in which blocks were added. A matrix product over each chunk is therefore
rounded the same, whether blocks were sealed in this process or come from a file.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

LENGTH = 8192
"""Blocks of a chunk."""
_FIRST = 64  # blocks in the first allocation, and the least growth


class Chunks:
    """A growing tensor of values per block; see the module's docstring.

    Args:
        length: blocks of a chunk.

    Attributes:
        count: number of blocks: the highest block number with values, plus 1.
    """

    def __init__(self, length: int = LENGTH) -> None:
        self._length = length
        self._chunks: tuple[Tensor, ...] = ()  # replaced as a whole: other threads may be reading
        self.count = 0

    def put(self, numbers: Tensor, values: Tensor) -> None:
        """Set the values (V, n, ...) of blocks (n,), whose numbers are on the host."""
        held = numbers.tolist()
        count = max(self.count, max(held) + 1)
        self._make_room(count, values)
        at, local = divmod(held[0], self._length)
        in_line = held == list(range(held[0], held[0] + len(held)))
        if in_line and local + len(held) <= self._length:
            # writing a contiguous slice needs no wait for a GPU
            self._chunks[at][:, local : local + len(held)] = values
        else:
            for chunk, inside, places in self._spread(numbers.to(values.device)):
                chunk.index_copy_(1, places, values[:, inside])
        self.count = count

    def _make_room(self, count: int, like: Tensor) -> None:
        """Make room for `count` blocks; the last chunk grows by an eighth up to full length."""
        for at in range(max(0, len(self._chunks) - 1), -(-count // self._length)):
            held = self._chunks[at] if at < len(self._chunks) else like[:, :0]
            room = min(self._length, count - at * self._length)
            if room > held.shape[1]:
                more = max(_FIRST, held.shape[1] // 8)
                room = min(self._length, max(held.shape[1] + more, room))
                fresh = like.new_empty(like.shape[0], room, *like.shape[2:])
                fresh[:, : held.shape[1]] = held
                self._chunks = (*self._chunks[:at], fresh)

    def parts(self, count: int) -> list[Tensor]:
        """Return the values of the first `count` blocks, one tensor (V, n, ...) per chunk."""
        starts = range(0, count, self._length)
        return [
            chunk[:, : count - start] for chunk, start in zip(self._chunks, starts, strict=False)
        ]

    def first(self, count: int) -> Tensor:
        """Return the values (V, count, ...) of the first `count` blocks."""
        parts = self.parts(count)
        return parts[0] if len(parts) == 1 else torch.cat(parts, 1)

    def rows(self, heads: Tensor, numbers: Tensor) -> Tensor:
        """Return the values (B, U, S, ...) of `heads` (U,) and blocks `numbers` (B, U or 1, S)."""
        if len(self._chunks) == 1:
            return _rows(self._chunks[0], heads[:, None], numbers)
        numbers = numbers.expand(-1, len(heads), -1)
        heads = heads[:, None].expand_as(numbers)
        owner = numbers // self._length
        result = None
        for at in owner.unique().tolist():
            inside = owner == at
            local = numbers[inside] - at * self._length
            values = _rows(self._chunks[at], heads[inside], local)
            if result is None:
                result = values.new_empty(*numbers.shape, *values.shape[1:])
            result[inside] = values
        assert result is not None
        return result

    def of(self, numbers: Tensor) -> Tensor:
        """Return the values (V, n, ...) of blocks (n,)."""
        here = numbers.to(self._chunks[0].device)
        return self.rows(torch.arange(self.width, device=here.device), here[None, None])[0]

    def _spread(self, numbers: Tensor) -> Iterator[tuple[Tensor, Tensor | slice, Tensor]]:
        """Yield each chunk, the indices of its blocks in `numbers` (n,), and their places in it."""
        chunks = self._chunks
        if len(chunks) == 1:
            yield chunks[0], slice(None), numbers
            return
        owner = numbers // self._length
        for at in owner.unique().tolist():
            inside = (owner == at).nonzero()[:, 0]
            yield chunks[at], inside, numbers[inside] - at * self._length

    def restore(self, parts: Sequence[Tensor], device: torch.device) -> None:
        """Take over values (V, n, ...) of blocks 0, 1, ..., in parts, without a copy if possible.

        The parts are never written to: a chunk that grows is copied.
        """
        self.count = sum(part.shape[1] for part in parts)
        starts = range(0, self.count, self._length)
        self._chunks = tuple(_between(parts, at, at + self._length).to(device) for at in starts)

    @property
    def width(self) -> int:
        """V, the first dimension; at least one chunk must exist."""
        return len(self._chunks[0])

    @property
    def nbytes(self) -> int:
        """Bytes of the values, without unused room."""
        return self._chunks[0][:, 0].nbytes * self.count if self._chunks else 0


def _rows(chunk: Tensor, heads: Tensor, local: Tensor) -> Tensor:
    """Gather values (m..., ...) of a chunk (V, n, ...); heads and blocks broadcast to (m...).

    The blocks of a chunk are contiguous; there may be a gap in memory between two heads.
    """
    one = chunk.shape[2:]
    width = math.prod(one)
    apart = chunk.stride(0) // width  # blocks between two heads
    flat = chunk.as_strided(((len(chunk) - 1) * apart + chunk.shape[1], width), (width, 1))
    at = torch.add(local, heads, alpha=apart)
    return flat.index_select(0, at.flatten()).view(*at.shape, *one)


def _between(parts: Sequence[Tensor], first: int, last: int) -> Tensor:
    """Return blocks `first` to `last` - 1, or to the end; a view if they lie in one part."""
    pieces, start = [], 0
    for part in parts:
        low, high = max(first - start, 0), min(last - start, part.shape[1])
        if low < high:
            pieces.append(part[:, low:high])
        start += part.shape[1]
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces, 1)
