"""Indexes over summary vectors of blocks, which find the largest inner products with a query.

An index holds V vectors per block: one for a whole row (all heads concatenated), or one per head.
There are X queries. Where query heads of one key head share a vector, X is larger than V, and query
x is multiplied with vector x // (X / V). Blocks have physical numbers, which all rows and branches
share. The table of a row maps the row's own block numbers to physical numbers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from inf_llm.errors import UnsupportedInputError
from inf_llm.memory.chunks import LENGTH, Chunks

Found = tuple[Tensor, Tensor]
"""Block numbers (B, X, k), int64 and ascending, and their scores in the same order, float32."""


class Index(ABC):
    """Index over blocks with V vectors of width W each.

    Attributes:
        on_host: whether the vectors are in host memory, even if attention runs on a GPU.
    """

    on_host = False

    @abstractmethod
    def put(self, blocks: Tensor, representatives: Tensor) -> None:
        """Set the vectors (V, n, W) of physical blocks (n,)."""

    @abstractmethod
    def search(self, query: Tensor, topk: int, total: int, table: Tensor | None) -> Found:
        """Return the `topk` best of each row's blocks.

        Args:
            query: queries (B, X, W); X is a multiple of V.
            topk: number of blocks to return, at most `total`.
            total: number of blocks of every row, N.
            table: physical numbers (B, N) of every row's blocks, on the host; None where each
                row has the blocks 0 to N - 1.
        """

    def vectors(self, blocks: Tensor) -> Tensor:
        """Return the vectors (V, n, W) of physical blocks (n,), to be saved in a file.

        Raises:
            UnsupportedInputError: this index cannot return its vectors.
        """
        raise UnsupportedInputError(f"a {type(self).__name__} cannot be saved with a memory")

    def restore(self, parts: Sequence[Tensor], device: torch.device) -> None:
        """Set vectors (V, n, W) of blocks 0, 1, ..., given in parts; the index must be empty."""
        vectors = torch.cat(list(parts), 1).to(device)
        self.put(torch.arange(vectors.shape[1]), vectors)

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """Bytes of the vectors."""


class TorchIndex(Index):
    """Exact search by matrix products for all blocks and rows at once, on the queries' device.

    Args:
        chunk: blocks scored at a time, to bound the memory of the scores; None for all at once.
            With a `table` of physical numbers, all blocks are scored at once in any case.
    """

    def __init__(self, chunk: int | None = None) -> None:
        self._chunk = chunk
        self._vectors = Chunks(chunk or LENGTH)

    def put(self, blocks: Tensor, representatives: Tensor) -> None:
        """See `Index.put`."""
        self._vectors.put(blocks, representatives)

    def search(self, query: Tensor, topk: int, total: int, table: Tensor | None) -> Found:
        """See `Index.search`."""
        best: Found | None = None
        first = 0
        for scores in self._scored(query, total, table):
            last = first + scores.shape[2]
            values, numbers = scores.topk(min(topk, scores.shape[2]), sorted=False)
            if best is not None:
                numbers = torch.cat((best[0], numbers + first), -1)
                values = torch.cat((best[1], values), -1)
                values, keep = values.topk(min(topk, last), sorted=False)
                numbers = numbers.gather(-1, keep)
            best, first = (numbers, values), last
        assert best is not None, "search needs a block"
        return ascending(*best)

    def _scored(self, query: Tensor, total: int, table: Tensor | None) -> Iterator[Tensor]:
        """Yield scores (B, X, n) of every row's blocks: in chunks, or all at once."""
        if table is None and self._chunk is not None:
            yield from (self._scores(query, part) for part in self._vectors.parts(total))
            return
        parts = self._vectors.parts(total if table is None else self._vectors.count)
        scores = joined([self._scores(query, part) for part in parts])
        if table is not None:
            physical = table[:, None, :total].to(query.device)
            scores = scores.gather(2, physical.expand(-1, query.shape[1], -1))
        yield scores

    def _scores(self, query: Tensor, vectors: Tensor) -> Tensor:
        """Return scores (B, X, n) of blocks with vectors (V, n, W)."""
        B, _, W = query.shape
        queries = query.view(B, len(vectors), -1, W).transpose(0, 1).flatten(1, 2)
        scores = _products(queries, vectors)  # (V, B * X / V, n)
        return scores.unflatten(1, (B, -1)).transpose(0, 1).flatten(1, 2).float()

    def vectors(self, blocks: Tensor) -> Tensor:
        """See `Index.vectors`."""
        return self._vectors.of(blocks)

    def restore(self, parts: Sequence[Tensor], device: torch.device) -> None:
        """See `Index.restore`."""
        self._vectors.restore(parts, device)

    @property
    def nbytes(self) -> int:
        """See `Index.nbytes`."""
        return self._vectors.nbytes


def _products(queries: Tensor, vectors: Tensor) -> Tensor:
    """Return the inner products (V, q, n) of queries (V, q, W) and vectors (V, n, W)."""
    if vectors.dtype == torch.float32:
        return torch.bmm(queries, vectors.transpose(1, 2))
    # in half precision, CPUs are many times slower with the operands in the order above
    return torch.bmm(vectors, queries.transpose(1, 2)).transpose(1, 2)


def joined(scores: list[Tensor]) -> Tensor:
    """Concatenate scores (..., n) of consecutive blocks."""
    return scores[0] if len(scores) == 1 else torch.cat(scores, -1)


def ascending(numbers: Tensor, values: Tensor) -> Found:
    """Sort both by block number, so that recalled blocks are in document order."""
    numbers, order = numbers.sort(-1)
    return numbers, values.gather(-1, order)
