"""Which blocks match a query best: exact inner products over all representatives.

An index holds V vectors per block: one for a whole row (the heads side by side), or one per head.
Where query heads that share a key head share its vector too, there are more queries than vectors,
X of them, and query x meets vector x // (X / V). Blocks have physical numbers, shared by all rows
and branches that hold them; a row's table says which physical block each of its own blocks is.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque

import torch
from torch import Tensor

from inf_llm.memory.sketch import GROUP, Asked, Sketch
from inf_llm.registry import Registry

INDEXES = Registry(
    "retrieval index",
    {
        "torch": "inf_llm.memory.index:TorchIndex",
        "faiss": "inf_llm.memory.faiss_index:FaissIndex",
        "ivf": "inf_llm.memory.faiss_index:InvertedIndex",
    },
)

_SKETCH_FROM = 2048  # blocks; below, reading the vectors themselves costs no more
_FORESEE_FROM = 8192  # blocks; below, asking several questions at once saves too little
_TOGETHER = 8  # questions asked at once
_PRODUCTS = 1 << 24  # integers held for questions asked at once

Found = tuple[Tensor, Tensor]
"""Block numbers (B, X, k) int64 ascending, and their scores in the same order, float32."""


class Index(ABC):
    """Representatives of blocks, V vectors of width W each."""

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

    def foresees(self) -> bool:
        """Whether searches of one row become faster when their queries are told beforehand."""
        return False

    def foresee(self, queries: Tensor) -> None:
        """A hint: the queries (n, X, W) of the next searches of one row, in turn."""
        del queries  # of no use to an index that does not foresee

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """Bytes of the vectors held."""


class TorchIndex(Index):
    """One matrix product over all blocks, for all rows at once, on the queries' device.

    On a CPU a single row over many blocks goes through a sketch first; the result is the same.

    Args:
        chunk: blocks scored at a time, to bound the memory of the scores; None for all at once.
    """

    def __init__(self, chunk: int | None = None) -> None:
        self._chunk = chunk
        self._vectors: Tensor | None = None  # (V, room, W)
        self._sketch: Sketch | None = None
        self._ahead = Foreseen()
        self._count = 0

    def put(self, blocks: Tensor, representatives: Tensor) -> None:
        """See `Index.put`; the room doubles, so appending is cheap on average."""
        needed = max(self._count, int(blocks.max()) + 1)
        self._make_room(needed, representatives)
        assert self._vectors is not None
        first, count = int(blocks[0]), len(blocks)
        self._forget_from(int(blocks.min()))  # numbers are used again once nobody holds them
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
        if self._can_sketch(query, total, table):
            return self._search_sketched(query[0], topk, total)
        own = None if table is None else table.to(query.device)
        step = self._chunk or total
        best: Found | None = None
        for first in range(0, total, step):
            last = min(first + step, total)
            scores = self._scores(query, first, last, own)
            found = scores.topk(min(topk, last - first), dim=-1, sorted=False)
            numbers, values = found.indices + first, found.values
            if best is not None:
                numbers, values = (
                    torch.cat((best[0], numbers), -1),
                    torch.cat((best[1], values), -1),
                )
                keep = values.topk(min(topk, values.shape[-1]), dim=-1, sorted=False)
                numbers, values = numbers.gather(-1, keep.indices), keep.values
            best = numbers, values
        assert best is not None, "search needs a block"
        return ascending(*best)

    def _can_sketch(self, query: Tensor, total: int, table: Tensor | None) -> bool:
        alone = table is None and query.shape[0] == 1
        enough = total >= max(_SKETCH_FROM, GROUP)
        return alone and enough and Sketch.available(query.device)

    def _forget_from(self, block: int) -> None:
        """Vectors of blocks from this one on are set again."""
        if self._sketch is not None and block < self._sketch.count:
            self._sketch.forget(block)
            self._ahead = Foreseen()

    def foresees(self) -> bool:
        """See `Index.foresees`."""
        return self._sketch is not None and self._sketch.count >= _FORESEE_FROM

    def foresee(self, queries: Tensor) -> None:
        """See `Index.foresee`."""
        self._ahead = Foreseen(queries)

    def _search_sketched(self, query: Tensor, topk: int, total: int) -> Found:
        """True scores only for the blocks that can be among the best; query (X, W)."""
        assert self._vectors is not None
        groups, room, width = self._vectors.shape
        if self._sketch is None:
            self._sketch = Sketch(groups, width)
        known = self._sketch.count
        if known < total:
            self._sketch.put(self._vectors[:, known:total], room)
        asked = self._ahead.take(query, self._sketch, total)
        if asked is None:
            (asked,) = self._sketch.ask(query[None], total)
        asks, blocks = self._sketch.candidates(asked, total, topk)
        numbers, scores = self._scored(query.float(), asks, blocks)
        best = scores.topk(topk, sorted=False)
        return ascending(numbers.gather(1, best.indices)[None], best.values[None])

    def _scored(self, query: Tensor, asks: Tensor, blocks: Tensor) -> tuple[Tensor, Tensor]:
        """Blocks (m,) listed for queries (m,) as a table (X, longest list), and true scores."""
        assert self._vectors is not None
        if len(query) == 1:
            return blocks[None], (self._vectors[0].index_select(0, blocks).float() @ query[0])[None]
        numbers, columns = _side_by_side(asks, blocks, len(query))
        vectors = self._vectors[asks // (len(query) // len(self._vectors)), blocks].float()
        scores = vectors.new_full(numbers.shape, -torch.inf)
        scores[asks, columns] = (vectors * query[asks]).sum(-1)
        return numbers, scores

    def _scores(self, query: Tensor, first: int, last: int, own: Tensor | None) -> Tensor:
        """Scores (B, X, last - first) of the rows' blocks `first` to `last - 1`."""
        assert self._vectors is not None
        B, X, W = query.shape
        groups = self._vectors.shape[0]
        some = slice(first, last) if own is None else slice(0, self._count)
        queries = query.view(B, groups, X // groups, W).permute(1, 3, 0, 2).flatten(2)
        scores = torch.matmul(self._vectors[:, some], queries)  # (V, blocks, B * X / V)
        scores = scores.unflatten(2, (B, -1)).permute(2, 0, 3, 1).flatten(1, 2)  # (B, X, blocks)
        if own is not None:
            scores = scores.gather(2, own[:, None, first:last].expand(-1, X, -1))
        return scores.float()

    @property
    def nbytes(self) -> int:
        """See `Index.nbytes`; the room that is not used yet is not counted."""
        if self._vectors is None:
            return 0
        sketched = 0 if self._sketch is None else self._sketch.nbytes
        return self._vectors[:, 0].nbytes * self._count + sketched


class Foreseen:
    """Questions that will be asked in turn, put to a sketch several at a time.

    What they find is the same as if they were asked alone: blocks that are sealed in between are
    behind the groups that the sketch knew, so they are candidates.

    Args:
        queries: (n, X, W); none by default.
    """

    def __init__(self, queries: Tensor | None = None) -> None:
        self._queries = torch.empty(0) if queries is None else queries
        self._next = 0
        self._answers: deque[Asked] = deque()

    def take(self, query: Tensor, sketch: Sketch, total: int) -> Asked | None:
        """What the sketch says to this query (X, W); None if it is not the next one.

        Nor is there an answer for somebody who holds fewer blocks, `total`, than it is about.
        """
        if self._next >= len(self._queries) or not torch.equal(self._queries[self._next], query):
            return None
        if not self._answers:
            at_once = max(1, min(_TOGETHER, _PRODUCTS // (total * len(query))))
            some = self._queries[self._next : self._next + at_once]
            self._answers.extend(sketch.ask(some, total))
        self._next += 1
        answer = self._answers.popleft()
        return answer if len(answer.best) * GROUP <= total else None


def _side_by_side(asks: Tensor, blocks: Tensor, queries: int) -> tuple[Tensor, Tensor]:
    """Lists of different lengths as a table: each query's blocks, in a row of its own.

    Args:
        asks: which query each block is listed for (m,), ascending.
        blocks: the listed blocks (m,).
        queries: how many queries there are.

    Returns:
        Blocks (queries, longest list), padded with 0, and the column of each listed one (m,).
    """
    sizes = torch.bincount(asks, minlength=queries)
    starts = sizes.cumsum(0) - sizes
    columns = torch.arange(len(asks), device=asks.device) - starts[asks]
    table = blocks.new_zeros(queries, int(sizes.max()))
    table[asks, columns] = blocks
    return table, columns


def ascending(numbers: Tensor, values: Tensor) -> Found:
    """Both sorted by block number, so that recalled blocks stand in document order."""
    numbers, order = numbers.sort(-1)
    return numbers, values.gather(-1, order)
