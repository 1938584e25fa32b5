"""Which blocks match a query best: exact inner products over all representatives.

An index holds one vector per block and *unit group*: one group for a whole row (the heads side by
side), or one per query head. Blocks have physical numbers, shared by all rows and branches that
hold them; a row's table says which physical block each of its own blocks is.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from inf_llm.errors import MissingExtraError
from inf_llm.memory.sketch import Sketch
from inf_llm.registry import Registry

INDEXES = Registry(
    "retrieval index",
    {
        "torch": "inf_llm.memory.index:TorchIndex",
        "faiss": "inf_llm.memory.index:FaissIndex",
    },
)

_SKETCH_FROM = 2048  # blocks; below, reading the vectors themselves costs no more

Found = tuple[Tensor, Tensor]
"""Block numbers (B, X, k) int64 ascending, and their scores in the same order, float32."""


class Index(ABC):
    """Representatives of blocks, X vectors of width W each."""

    @abstractmethod
    def put(self, blocks: Tensor, representatives: Tensor) -> None:
        """Set the vectors (X, n, W) of physical blocks (n,)."""

    @abstractmethod
    def search(self, query: Tensor, topk: int, total: int, table: Tensor | None) -> Found:
        """The best `topk` of each row's blocks.

        Args:
            query: (B, X, W).
            topk: how many, at most `total`.
            total: blocks of every row, N.
            table: physical number of every block of every row (B, N), on the host; None where
                each row's blocks are simply 0 to N - 1.
        """

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
        self._vectors: Tensor | None = None  # (X, room, W)
        self._sketch: Sketch | None = None
        self._count = 0

    def put(self, blocks: Tensor, representatives: Tensor) -> None:
        """See `Index.put`; the room doubles, so appending is cheap on average."""
        needed = max(self._count, int(blocks.max()) + 1)
        self._make_room(needed, representatives)
        assert self._vectors is not None
        first, count = int(blocks[0]), len(blocks)
        if self._sketch is not None:  # numbers are used again once nobody holds their blocks
            self._sketch.count = min(self._sketch.count, int(blocks.min()))
        if int(blocks[-1]) - first + 1 == count:
            self._vectors[:, first : first + count] = representatives
        else:
            self._vectors[:, blocks.to(self._vectors.device)] = representatives
        self._count = needed

    def _make_room(self, needed: int, like: Tensor) -> None:
        room = 0 if self._vectors is None else self._vectors.shape[1]
        if needed <= room:
            return
        fresh = like.new_zeros(like.shape[0], max(64, 2 * room, needed), like.shape[2])
        if self._vectors is not None:
            fresh[:, : self._count] = self._vectors[:, : self._count]
        self._vectors = fresh

    def search(self, query: Tensor, topk: int, total: int, table: Tensor | None) -> Found:
        """See `Index.search`."""
        if self._can_sketch(query, total, table):
            return self._search_sketched(query[0, 0], topk, total)
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
        alone = table is None and query.shape[:2] == (1, 1)
        return alone and total >= _SKETCH_FROM and Sketch.available(query.device)

    def _search_sketched(self, query: Tensor, topk: int, total: int) -> Found:
        """True scores only for the blocks that can be among the best."""
        assert self._vectors is not None
        vectors = self._vectors[0]
        if self._sketch is None:
            self._sketch = Sketch(vectors.shape[1])
        known = self._sketch.count
        if known < total:
            self._sketch.put(known, vectors[known:total], room=len(vectors))
        likely = self._sketch.candidates(query, total, topk)
        scores = torch.mv(vectors[likely], query).float()
        best = scores.topk(topk, sorted=False)
        return ascending(likely[best.indices].view(1, 1, -1), best.values.view(1, 1, -1))

    def _scores(self, query: Tensor, first: int, last: int, own: Tensor | None) -> Tensor:
        """Scores (B, X, last - first) of the rows' blocks `first` to `last - 1`."""
        assert self._vectors is not None
        if own is None:
            vectors = self._vectors[:, first:last]  # (X, n, W)
            return torch.matmul(vectors, query.permute(1, 2, 0)).permute(2, 0, 1).float()
        wanted = own[:, first:last]
        vectors = self._vectors[:, : self._count]
        scores = torch.matmul(vectors, query.permute(1, 2, 0)).permute(2, 0, 1)  # (B, X, P)
        return scores.gather(2, wanted.unsqueeze(1).expand(-1, scores.shape[1], -1)).float()

    @property
    def nbytes(self) -> int:
        """See `Index.nbytes`; the room that is not used yet is not counted."""
        if self._vectors is None:
            return 0
        sketched = 0 if self._sketch is None else self._sketch.count * self._sketch.bytes_per_vector
        return self._vectors[:, 0].nbytes * self._count + sketched


class FaissIndex(Index):
    """The same search through faiss, on the host, one flat inner-product index per group."""

    def __init__(self, chunk: int | None = None) -> None:
        try:
            import faiss
        except ImportError as error:
            raise MissingExtraError(
                "faiss = true needs the faiss package: pip install 'inf-llm[faiss]'"
            ) from error
        self._faiss = faiss
        self._chunk = chunk
        self._indexes: list = []
        self._known: set[int] = set()

    def put(self, blocks: Tensor, representatives: Tensor) -> None:
        """See `Index.put`."""
        if not self._indexes:
            width = representatives.shape[2]
            flat = self._faiss.IndexFlatIP
            self._indexes = [
                self._faiss.IndexIDMap(flat(width)) for _ in range(representatives.shape[0])
            ]
        numbers = blocks.numpy()
        replaced = self._known.intersection(numbers.tolist())
        for index, vectors in zip(self._indexes, representatives, strict=True):
            if replaced:
                index.remove_ids(numbers)
            index.add_with_ids(vectors.float().cpu().contiguous().numpy(), numbers)
        self._known.update(numbers.tolist())

    def search(self, query: Tensor, topk: int, total: int, table: Tensor | None) -> Found:
        """See `Index.search`."""
        host = query.float().cpu()
        own = torch.arange(total).expand(len(host), -1) if table is None else table
        rows = [self._search_row(host[b], own[b], topk) for b in range(len(host))]
        numbers = torch.stack([row[0] for row in rows]).to(query.device)
        values = torch.stack([row[1] for row in rows]).to(query.device)
        return ascending(numbers, values)

    def _search_row(self, query: Tensor, own: Tensor, topk: int) -> Found:
        """Numbers and scores (X, topk) among one row's own blocks."""
        selector = self._faiss.IDSelectorBatch(own.numpy())
        chosen = self._faiss.SearchParameters(sel=selector)  # type: ignore[call-arg]
        numbers, values = [], []
        for group, index in enumerate(self._indexes):
            score, physical = index.search(query[group : group + 1].numpy(), topk, params=chosen)
            order = own.argsort()
            at = torch.searchsorted(own[order], torch.from_numpy(physical[0]))
            numbers.append(order[at])
            values.append(torch.from_numpy(score[0]))
        return torch.stack(numbers), torch.stack(values)

    @property
    def nbytes(self) -> int:
        """See `Index.nbytes`."""
        return sum(index.ntotal * index.d * 4 for index in self._indexes)


def ascending(numbers: Tensor, values: Tensor) -> Found:
    """Both sorted by block number, so that recalled blocks stand in document order."""
    numbers, order = numbers.sort(-1)
    return numbers, values.gather(-1, order)
