"""Which blocks match a query best: exact inner products over all representatives.

An index holds V vectors per block: one for a whole row (the heads side by side), or one per head.
Where query heads that share a key head share its vector too, there are more queries than vectors,
X of them, and query x meets vector x // (X / V). Blocks have physical numbers, shared by all rows
and branches that hold them; a row's table says which physical block each of its own blocks is.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections import deque

import torch
from torch import Tensor

from inf_llm.memory.sketch import FINE, GROUP, Bounds, Sketch
from inf_llm.native import sketch as native
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
_LIKELY = 56  # blocks scored beside those asked for, as a rule enough to be sure
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
        self._lock = threading.Lock()

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
            found = self._search_sketched(query[0], topk, total)
            if found is not None:
                return found
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

    def _search_sketched(self, query: Tensor, topk: int, total: int) -> Found | None:
        """True scores only for the blocks that can be among the best; query (X, W).

        None where float32 cannot hold what must be calculated, so that nothing is certain.
        """
        assert self._vectors is not None
        groups, room, width = self._vectors.shape
        if self._sketch is None:
            self._sketch = Sketch(groups, width)
        with self._lock:  # branches of one memory may search in several threads
            known = self._sketch.count
            if known < total and self._sketch.sound:
                self._sketch.put(self._vectors[:, known:total], room)
        if not self._sketch.sound:
            return None
        bounds = self._ahead.take(query, self._sketch, total)
        query = query.float().contiguous()
        if bounds is None:
            found = self._sketch.find(query, self._vectors, topk, total)
            if found is not None:
                return found[0][None], found[1][None]
            (bounds,) = self._sketch.ask(query[None], total)
        parts = bounds.products, bounds.scales, bounds.facts
        found = native.best(*parts, FINE, self._vectors, query, topk, total)
        if found is None:
            if not bounds.facts.isfinite().all():
                return None
            found = self._best(query, bounds, topk, total)
        return found[0][None], found[1][None]

    def _best(self, query: Tensor, bounds: Bounds, topk: int, total: int) -> Found:
        """The best blocks (X, topk) and their scores, by true scores of the likely ones."""
        likely = min(bounds.count, topk + _LIKELY)
        blocks, scores, sure = self._best_of(likely, query, bounds, topk, total)
        if not sure:
            # Every other block has a bound below what the worst of these already scored.
            likely = max(likely, bounds.reaching(scores.amin(1)))
            blocks, scores, _ = self._best_of(likely, query, bounds, topk, total)
        return ascending(blocks, scores)

    def _best_of(
        self, likely: int, query: Tensor, bounds: Bounds, topk: int, total: int
    ) -> tuple[Tensor, Tensor, bool]:
        """The best among the `likely` highest bounds and the blocks without one.

        Returns:
            Numbers (X, topk), true scores, and whether no other block can be better than these.
        """
        blocks, lowest = bounds.highest(likely)
        rest = torch.arange(bounds.count, total).expand(len(query), -1)
        blocks = torch.cat((blocks, rest), 1)
        best = self._scored(query, blocks).topk(topk)
        sure = likely == bounds.count or bool((best.values[:, -1] >= lowest).all())
        return blocks.gather(1, best.indices), best.values, sure

    def _scored(self, query: Tensor, blocks: Tensor) -> Tensor:
        """True scores (X, m) of each query's own blocks (X, m); queries (X, W)."""
        assert self._vectors is not None
        V, room, W = self._vectors.shape
        if V > 1:
            owner = torch.arange(len(query)) // (len(query) // V)
            blocks = blocks + (owner * room)[:, None]
        vectors = self._vectors.view(-1, W).index_select(0, blocks.flatten()).float()
        return torch.bmm(vectors.view(*blocks.shape, W), query[:, :, None])[..., 0]

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
        self._answers: deque[Bounds] = deque()

    def take(self, query: Tensor, sketch: Sketch, total: int) -> Bounds | None:
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
        return answer if answer.count <= total else None


def ascending(numbers: Tensor, values: Tensor) -> Found:
    """Both sorted by block number, so that recalled blocks stand in document order."""
    numbers, order = numbers.sort(-1)
    return numbers, values.gather(-1, order)
