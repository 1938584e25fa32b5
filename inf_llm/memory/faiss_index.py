"""Search indexes that use faiss: exact, or with an inverted file from a given size on."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from inf_llm.errors import MissingExtraError
from inf_llm.memory.index import Found, Index, ascending

_LISTS_READ = 1 / 8  # share of an inverted file's lists that a search reads


class FaissIndex(Index):
    """Exact search by faiss on the host, with one flat inner-product index per vector."""

    on_host = True

    def __init__(self) -> None:
        try:
            import faiss
        except ImportError as error:
            raise MissingExtraError(
                "index faiss (faiss = true) needs the faiss package: pip install 'inf-llm[faiss]'"
            ) from error
        self._faiss = faiss
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
            self._add(index, vectors.float().cpu().contiguous().numpy(), numbers)
        self._known.update(numbers.tolist())

    def _add(self, index: Any, vectors: Any, numbers: Any) -> None:
        """Add vectors (n, W) of blocks with physical numbers (n,) to a faiss index."""
        index.add_with_ids(vectors, numbers)

    def search(self, query: Tensor, topk: int, total: int, table: Tensor | None) -> Found:
        """See `Index.search`."""
        host = query.float().cpu()
        if table is None and total < len(self._known):  # the rest is of other rows
            table = torch.arange(total).expand(len(host), -1)
        tables = [None] * len(host) if table is None else table
        rows = [
            self._search_row(queries, row_table, topk)
            for queries, row_table in zip(host, tables, strict=True)
        ]
        numbers = torch.stack([row[0] for row in rows]).to(query.device)
        values = torch.stack([row[1] for row in rows]).to(query.device)
        return ascending(numbers, values)

    def _search_row(self, query: Tensor, table: Tensor | None, topk: int) -> Found:
        """Return numbers and scores (X, topk) of the best of one row's blocks.

        `table` has the physical numbers of these blocks; None where they are all blocks, from 0.
        """
        selector = None if table is None else self._faiss.IDSelectorBatch(table.numpy())
        pairs = zip(self._indexes, query.chunk(len(self._indexes)), strict=True)
        results = [self._best(index, queries, topk, selector) for index, queries in pairs]
        values, physical = (torch.cat(parts) for parts in zip(*results, strict=True))
        if table is None:
            return physical, values
        sorted_table, order = table.sort()
        return order[torch.searchsorted(sorted_table, physical)], values

    def _best(self, index: Any, queries: Tensor, topk: int, selector: Any) -> tuple[Tensor, Tensor]:
        """Return scores and physical numbers (n, topk) of the best selected blocks.

        `queries` are queries (n, W).
        """
        chosen = self._faiss.SearchParameters(sel=selector)  # type: ignore[call-arg]
        scores, physical = index.search(queries.numpy(), topk, params=chosen)
        return torch.from_numpy(scores), torch.from_numpy(physical)

    def vectors(self, blocks: Tensor) -> Tensor:
        """See `Index.vectors`.

        An inverted file is rebuilt from these vectors, and may then find slightly other blocks.
        """
        parts = []
        for index in self._indexes:
            numbers, vectors = (torch.from_numpy(each) for each in self._contents(index))
            order = numbers.argsort()
            parts.append(vectors[order[torch.searchsorted(numbers[order], blocks)]])
        return torch.stack(parts)

    def _contents(self, index: Any) -> tuple[Any, Any]:
        """Return the physical numbers (n,) and vectors (n, W) of an index as arrays."""
        flat = self._faiss.downcast_index(index.index)
        return self._faiss.vector_to_array(index.id_map), flat.reconstruct_n(0, flat.ntotal)

    @property
    def nbytes(self) -> int:
        """See `Index.nbytes`."""
        return sum(index.ntotal * index.d * 4 for index in self._indexes)


class InvertedIndex(FaissIndex):
    """Exact search below `start` blocks; from there on faiss's inverted file (IVF), approximate.

    Each vector is in the list of its nearest centre. A search reads an eighth of the lists: those
    whose centres have the largest inner products with the query. The nearest centre is the one at
    the least Euclidean distance. The keys of a head are similar, so the largest inner product would
    put nearly all vectors into the same few lists. Each time that the number of blocks has grown
    fourfold, the lists are rebuilt, and there are more of them.

    Args:
        start: number of blocks from which on the inverted file is used; at least 64.
    """

    def __init__(self, start: int = 1 << 17) -> None:
        super().__init__()
        self._refile_at = max(start, 64)

    def put(self, blocks: Tensor, representatives: Tensor) -> None:
        """See `Index.put`."""
        super().put(blocks, representatives)
        if len(self._known) >= self._refile_at:
            self._indexes = [self._filed(index) for index in self._indexes]
            self._refile_at = 4 * len(self._known)

    def _filed(self, index: Any) -> Any:
        """Return an inverted file with the vectors and numbers of an index."""
        faiss = self._faiss
        numbers, vectors = self._contents(index)
        lists = max(1, round(len(numbers) ** 0.5))
        clusters = faiss.Kmeans(index.d, lists, niter=10, min_points_per_centroid=1)
        clusters.train(vectors[:: max(1, len(vectors) // (64 * lists))])
        centres = faiss.IndexFlatIP(index.d)
        centres.add(clusters.centroids)
        filed = faiss.IndexIVFFlat(centres, index.d, lists, faiss.METRIC_INNER_PRODUCT)
        filed.nprobe = max(1, round(lists * _LISTS_READ))
        filed.is_trained = True
        filed.own_fields = True
        centres.this.disown()
        self._add(filed, vectors, numbers)
        return filed

    def _add(self, index: Any, vectors: Any, numbers: Any) -> None:
        """See `FaissIndex._add`."""
        if not isinstance(index, self._faiss.IndexIVFFlat):
            super()._add(index, vectors, numbers)
            return
        from faiss.contrib.ivf_tools import add_preassigned

        nearest = self._faiss.IndexFlatL2(index.d)
        nearest.add(index.quantizer.reconstruct_n(0, index.nlist))
        lists = nearest.search(vectors, 1)[1][:, 0]
        add_preassigned(index, vectors, lists, numbers)

    def _contents(self, index: Any) -> tuple[Any, Any]:
        """See `FaissIndex._contents`."""
        if isinstance(index, self._faiss.IndexIDMap):
            return super()._contents(index)
        parts = [self._list(index, at) for at in range(index.nlist)]
        numbers = torch.cat([numbers for numbers, _ in parts]).numpy()
        return numbers, torch.cat([vectors for _, vectors in parts]).numpy()

    def _list(self, index: Any, at: int) -> tuple[Tensor, Tensor]:
        """Return the physical numbers and vectors in one list of an inverted file."""
        faiss, lists = self._faiss, index.invlists
        size = lists.list_size(at)
        if not size:
            return torch.empty(0, dtype=torch.int64), torch.empty(0, index.d)
        numbers = faiss.rev_swig_ptr(lists.get_ids(at), size).copy()
        codes = faiss.rev_swig_ptr(lists.get_codes(at), size * index.d * 4).copy()
        return torch.from_numpy(numbers), torch.from_numpy(codes.view("float32")).view(size, -1)

    def _best(self, index: Any, queries: Tensor, topk: int, selector: Any) -> tuple[Tensor, Tensor]:
        """See `FaissIndex._best`; if the chosen lists have too few blocks, read all lists."""
        if not isinstance(index, self._faiss.IndexIVFFlat):
            return super()._best(index, queries, topk, selector)
        for read in (index.nprobe, index.nlist):
            chosen = self._faiss.SearchParametersIVF(sel=selector, nprobe=read)
            scores, physical = index.search(queries.numpy(), topk, params=chosen)
            if (physical >= 0).all():
                break
        return torch.from_numpy(scores), torch.from_numpy(physical)
