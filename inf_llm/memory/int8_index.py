"""The exact search of many blocks through a copy of their vectors in int8, on a CPU."""

from __future__ import annotations

import threading

import torch
from torch import Tensor

from inf_llm.memory.index import Found, TorchIndex, ascending
from inf_llm.memory.sketch import FINE, GROUP, Bounds, Sketch
from inf_llm.native import sketch as native

_SKETCH_FROM = 2048  # blocks; below, reading the vectors themselves costs no more
_SEVERAL_FROM = 8192  # blocks; below, one reading of the codes for several queries saves too little
_LIKELY = 56  # blocks scored beside those asked for, as a rule enough to be sure
_PRODUCTS = 1 << 24  # integers held for queries that are searched together


class Int8Index(TorchIndex):
    """Scores by bounds first, and truly only the blocks that can be among the best.

    It does so for a single row over many blocks on a CPU; any other search is that of `TorchIndex`.
    What is found is the same.
    """

    def __init__(self, chunk: int | None = None) -> None:
        super().__init__(chunk)
        self._sketch: Sketch | None = None
        self._lock = threading.Lock()

    def put(self, blocks: Tensor, representatives: Tensor) -> None:
        """See `Index.put`; a number is used again once no holder of its block is left."""
        super().put(blocks, representatives)
        if self._sketch is not None:
            self._sketch.forget(int(blocks.min()))

    def search(self, query: Tensor, topk: int, total: int, table: Tensor | None) -> Found:
        """See `Index.search`."""
        found = None
        if table is None and query.shape[0] == 1:
            sketch = self._sketch_of(query, total)
            found = None if sketch is None else self._search_one(sketch, query[0], topk, total)
        return super().search(query, topk, total, table) if found is None else found

    @property
    def gains_from_several(self) -> bool:
        """See `Index.gains_from_several`."""
        return self._sketch is not None and self._sketch.count >= _SEVERAL_FROM

    def search_several(self, queries: Tensor, topk: int, total: int) -> list[Found]:
        """See `Index.search_several`; the codes are read once for as many as memory allows."""
        sketch = self._sketch_of(queries, total)
        if sketch is None:
            return super().search_several(queries, topk, total)
        at_once = max(1, _PRODUCTS // (total * queries.shape[1]))
        found = []
        for some in queries.split(at_once):
            for query, bounds in zip(some, sketch.ask(some, total), strict=True):
                best = self._within(bounds, query.float().contiguous(), topk, total)
                found.append(best or super().search(query[None], topk, total, None))
        return found

    def _sketch_of(self, query: Tensor, total: int) -> Sketch | None:
        """The sketch of the first `total` blocks; None where it would not help.

        Nor is there one where float32 cannot hold what must be calculated.
        """
        if total < max(_SKETCH_FROM, GROUP) or not Sketch.available(query.device):
            return None
        assert self._vectors is not None
        groups, room, width = self._vectors.shape
        with self._lock:  # branches of one memory may search in several threads
            if self._sketch is None:
                self._sketch = Sketch(groups, width)
            known = self._sketch.count
            if known < total and self._sketch.sound:
                self._sketch.put(self._vectors[:, known:total], room)
        return self._sketch if self._sketch.sound else None

    def _search_one(self, sketch: Sketch, query: Tensor, topk: int, total: int) -> Found | None:
        """The best blocks for a query (X, W); None where nothing is certain."""
        assert self._vectors is not None
        query = query.float().contiguous()
        found = sketch.find(query, self._vectors, topk, total)
        if found is not None:
            return found[0][None], found[1][None]
        (bounds,) = sketch.ask(query[None], total)
        return self._within(bounds, query, topk, total)

    def _within(self, bounds: Bounds, query: Tensor, topk: int, total: int) -> Found | None:
        """The best blocks for a query (X, W) by its bounds; None where nothing is certain."""
        assert self._vectors is not None
        parts = bounds.products, bounds.scales, bounds.facts
        found = native.best(*parts, FINE, self._vectors, query, topk, total)
        if found is None:
            if not bounds.facts.isfinite().all():
                return None
            found = self._best_within(query, bounds, topk, total)
        return found[0][None], found[1][None]

    def _best_within(self, query: Tensor, bounds: Bounds, topk: int, total: int) -> Found:
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

    @property
    def nbytes(self) -> int:
        """See `Index.nbytes`."""
        return super().nbytes + (0 if self._sketch is None else self._sketch.nbytes)
