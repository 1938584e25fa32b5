"""Which blocks match a query best: exact inner products over all representatives.

An index holds V vectors per block: one for a whole row (the heads side by side), or one per head.
Where query heads that share a key head share its vector too, there are more queries than vectors,
X of them, and query x meets vector x // (X / V). Blocks have physical numbers, shared by all rows
and branches that hold them; a row's table says which physical block each of its own blocks is.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from inf_llm.errors import UnsupportedInputError

Found = tuple[Tensor, Tensor]
"""Block numbers (B, X, k) int64 ascending, and their scores in the same order, float32."""


class Index(ABC):
    """Representatives of blocks, V vectors of width W each.

    Attributes:
        on_host: whether they lie in host memory, wherever attention is computed.
    """

    on_host = False

    @abstractmethod
    def put(self, blocks: Tensor, representatives: Tensor) -> None:
        """Set the vectors (V, n, W) of physical blocks (n,)."""

    @abstractmethod
    def search(self, query: Tensor, topk: int, total: int, table: Tensor | None) -> Found:
        """The best `topk` of each row's blocks.

        Args:
            query: (B, X, W), X a multiple of V.
            topk: how many, at most `total`.
            total: blocks of every row, N.
            table: physical number of every block of every row (B, N), on the host; None where
                each row's blocks are simply 0 to N - 1.
        """

    def vectors(self, blocks: Tensor) -> Tensor:
        """The vectors (V, n, W) of physical blocks (n,), for a file.

        Raises:
            UnsupportedInputError: this index does not give them back.
        """
        raise UnsupportedInputError(f"a {type(self).__name__} cannot be saved with a memory")

    def restore(self, parts: Sequence[Tensor], device: torch.device) -> None:
        """Set vectors (n, V, W) of blocks 0, 1, ..., part after part; nothing is held yet."""
        vectors = torch.cat(list(parts)).transpose(0, 1).to(device)
        self.put(torch.arange(vectors.shape[1]), vectors)

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """Bytes of the vectors held."""


class TorchIndex(Index):
    """One matrix product over all blocks, for all rows at once, on the queries' device.

    Args:
        chunk: blocks scored at a time, to bound the memory of the scores; None for all at once.
    """

    def __init__(self, chunk: int | None = None) -> None:
        self._chunk = chunk
        self._vectors: Tensor | None = None  # (V, room, W)
        self._count = 0

    def put(self, blocks: Tensor, representatives: Tensor) -> None:
        """See `Index.put`; the room doubles, so appending is cheap on average."""
        needed = max(self._count, int(blocks.max()) + 1)
        self._make_room(needed, representatives)
        assert self._vectors is not None
        first, count = int(blocks[0]), len(blocks)
        if int(blocks[-1]) - first + 1 == count:
            self._vectors[:, first : first + count] = representatives
        else:
            self._vectors[:, blocks.to(self._vectors.device)] = representatives
        self._count = needed

    def _make_room(self, needed: int, like: Tensor) -> None:
        room = 0 if self._vectors is None else self._vectors.shape[1]
        if needed <= room:
            return
        fresh = like.new_empty(like.shape[0], max(64, 2 * room, needed), like.shape[2])
        if self._vectors is not None:
            fresh[:, : self._count] = self._vectors[:, : self._count]
        self._vectors = fresh

    def search(self, query: Tensor, topk: int, total: int, table: Tensor | None) -> Found:
        """See `Index.search`."""
        own = None if table is None else table.to(query.device)
        step = self._chunk or total
        best: Found | None = None
        for first in range(0, total, step):
            last = min(first + step, total)
            scores = self._scores(query, first, last, own)
            values, numbers = scores.topk(min(topk, last - first), sorted=False)
            if best is not None:
                numbers = torch.cat((best[0], numbers + first), -1)
                values = torch.cat((best[1], values), -1)
                values, keep = values.topk(min(topk, last), sorted=False)
                numbers = numbers.gather(-1, keep)
            best = numbers, values
        assert best is not None, "search needs a block"
        return ascending(*best)

    def _scores(self, query: Tensor, first: int, last: int, own: Tensor | None) -> Tensor:
        """Scores (B, X, last - first) of the rows' blocks `first` to `last - 1`."""
        assert self._vectors is not None
        B, X, W = query.shape
        groups = self._vectors.shape[0]
        some = slice(first, last) if own is None else slice(0, max(self._count, last))
        queries = query.view(B, groups, X // groups, W).permute(1, 3, 0, 2).flatten(2)
        scores = torch.matmul(self._vectors[:, some], queries)  # (V, blocks, B * X / V)
        scores = scores.unflatten(2, (B, -1)).permute(2, 0, 3, 1).flatten(1, 2)  # (B, X, blocks)
        if own is not None:
            scores = scores.gather(2, own[:, None, first:last].expand(-1, X, -1))
        return scores.float()

    def vectors(self, blocks: Tensor) -> Tensor:
        """See `Index.vectors`."""
        assert self._vectors is not None
        return self._vectors[:, blocks.to(self._vectors.device)]

    def restore(self, parts: Sequence[Tensor], device: torch.device) -> None:
        """See `Index.restore`."""
        self._vectors, self._count = with_room(parts, device)

    @property
    def nbytes(self) -> int:
        """See `Index.nbytes`; the room that is not used yet is not counted."""
        if self._vectors is None:
            return 0
        return self._vectors[:, 0].nbytes * self._count


def with_room(parts: Sequence[Tensor], device: torch.device) -> tuple[Tensor, int]:
    """Rows (n, V, ...) of several parts in one buffer (V, room, ...), and how many there are.

    There is room for an eighth more, so that the first to come do not move all that is there.
    """
    count, like = sum(map(len, parts)), parts[0]
    room = max(64, count + count // 8)
    buffer = torch.empty(like.shape[1], room, *like.shape[2:], dtype=like.dtype, device=device)
    at = 0
    for part in parts:
        buffer[:, at : at + len(part)] = part.transpose(0, 1)
        at += len(part)
    return buffer, count


def ascending(numbers: Tensor, values: Tensor) -> Found:
    """Both sorted by block number, so that recalled blocks stand in document order."""
    numbers, order = numbers.sort(-1)
    return numbers, values.gather(-1, order)
