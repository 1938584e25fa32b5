"""The memory of one layer for some batch rows: sinks, the newest tokens, and sealed blocks.

The memory stores keys and values, and handles no positions and no softmax. Keys are unrotated. The
caller may append further streams, which move with the keys. The attention layer sets how many of
the newest tokens stay unsealed, and passes in the attention mass that each token received.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from inf_llm.memory.block_store import BlockStore
from inf_llm.memory.block_table import BlockTable
from inf_llm.memory.codec import PageShape
from inf_llm.memory.recent import Recent
from inf_llm.memory.search import Query
from inf_llm.memory.selection import Selection
from inf_llm.memory.stats import MemoryStats
from inf_llm.memory.summary import Summary
from inf_llm.settings import InfLLMSettings
from inf_llm.state import BlockReader, State, Stateful
from inf_llm.variants import SELECTION, SUMMARY


@dataclass(frozen=True)
class Recalled:
    """Sealed blocks that are recalled for one execution block.

    Their keys and values may still be in transfer to the device; reading them waits for it.

    Attributes:
        blocks: block numbers within each row (B, X, k), ascending, for X choosers.
        scores: their scores (B, X, k); None where all blocks are recalled without a search, or
            where blocks of an earlier step are used again.
        places: their slots (B, X, k); see `BlockStore.fetch`.
        arrive: waits for the transfer and returns keys and values; called once.
    """

    blocks: Tensor
    scores: Tensor | None
    places: Tensor
    arrive: Callable[[], tuple[Tensor, Tensor]]

    @functools.cached_property
    def pages(self) -> tuple[Tensor, Tensor]:
        """Keys and values; the first access waits for their transfer."""
        return self.arrive()

    @property
    def k(self) -> Tensor:
        """Keys (B, Y, k * block_size, D); Y = G key heads, or X choosers that choose alone."""
        return self.pages[0]

    @property
    def v(self) -> Tensor:
        """Values (B, Y, k * block_size, Dv)."""
        return self.pages[1]

    def of_rows(self, rows: Tensor) -> Recalled:
        """Return the recalled blocks of the rows of a 1-D index; it may repeat or omit rows."""

        def select(part: Tensor) -> Tensor:
            return part.index_select(0, rows.to(part.device))

        scores = None if self.scores is None else select(self.scores)
        pages = select(self.k), select(self.v)
        return Recalled(select(self.blocks), scores, select(self.places), lambda: pages)


class BlockMemory(Stateful):
    """The memory of one layer, for rows of equal length; see the module's docstring.

    Args:
        settings: sizes and policies.
        keep: number of newest tokens that stay unsealed.
        arriving: most tokens that are appended between two calls of `settle`.
        slots: as for `BlockStore`.
    """

    fixed = ("sinks",)
    numbers = ("seen",)
    parts = ("recent", "_table")
    derived = ("_latest",)

    def __init__(
        self, settings: InfLLMSettings, keep: int, arriving: int, slots: bool | None = None
    ) -> None:
        self.settings = settings
        self.keep = keep
        self.summary: Summary = settings.summary.build(SUMMARY, settings.block_size)
        self._slots = slots
        held = keep + settings.block_size + arriving
        self.recent = Recent(held + held // 4, sums=("mass",))
        self.sinks: tuple[Tensor, Tensor] | None = None  # (B, G, n, D), (B, G, n, Dv)
        self.seen = 0
        self._store: BlockStore | None = None
        self._table = BlockTable()
        self._latest: tuple[Tensor, Recalled] | None = None

    @property
    def blocks(self) -> int:
        """Number of sealed blocks, the same for every row."""
        return len(self._table)

    @property
    def table(self) -> Tensor | None:
        """Physical numbers (B, N) of all rows' blocks; None where each row has 0 to N - 1."""
        return self._table.physical

    @property
    def store(self) -> BlockStore | None:
        """The store of the sealed blocks; None before the first block is sealed."""
        return self._store

    def selection(self, heads: int, groups: int) -> Selection:
        """Return the selection rule for `heads` query heads and `groups` key heads."""
        summaries = groups if self.summary.shared else heads
        chosen: Selection = self.settings.selection.build(SELECTION, heads, groups, summaries)
        return chosen

    def append(self, k: Tensor, v: Tensor, heads: int, **more: Tensor) -> None:
        """Append L tokens: keys (B, G, L, D), values (B, G, L, Dv), and further streams.

        `heads` is the number of query heads, H; attention mass is counted for each of them.
        """
        mass = k.new_empty(k.shape[0], heads, k.shape[2], dtype=torch.float32)
        self.recent.append(k=k, v=v, mass=mass, **more)
        self.seen += k.shape[2]
        if self.sinks is None:
            self.sinks = k[:, :, :0].clone(), v[:, :, :0].clone()  # views would keep k and v alive

    def recall(self, query: Query) -> Recalled | None:
        """Return the `topk` blocks that match a query best; None while nothing is sealed."""
        if self._store is None or not self.blocks:
            return None
        topk = min(self.settings.topk, self.blocks)
        if topk == self.blocks:
            return self._every(query)
        result = self._store.search(query, topk, self.blocks, self._table.physical)
        return self._fetch(*result)

    @staticmethod
    def recall_each(memories: Sequence[BlockMemory], query: Query) -> list[Recalled | None]:
        """Recall blocks from n memories of one layer, one memory for each row of a query.

        The query has the shape (n, H, Q, D). The results are those of `recall`. All rows that need
        a search are searched in one batch.
        """
        rows = [Query(row, query.scale) for row in query.vectors.split(1)]
        topk = memories[0].settings.topk
        search = [at for at, memory in enumerate(memories) if memory.blocks > topk]
        recalled = {
            at: memory.recall(rows[at])
            for at, memory in enumerate(memories)
            if memory.blocks <= topk
        }
        if search:
            batch = Query(query.vectors[search], query.scale)
            some = [memories[at] for at in search]
            stores = [memory._store for memory in some if memory._store is not None]
            totals, tables = [memory.blocks for memory in some], [memory.table for memory in some]
            results = stores[0].search_each(stores, batch, topk, totals, tables)
            for at, memory, result in zip(search, some, results, strict=True):
                recalled[at] = memory._fetch(*result)
        return [recalled[at] for at in range(len(memories))]

    def _every(self, query: Query) -> Recalled:
        """Recall all blocks, without scores."""
        assert self._store is not None
        choosers = self._store.selection.choosers
        every = torch.arange(self.blocks, device=query.vectors.device)
        return self._fetch(every.expand(query.vectors.shape[0], choosers, self.blocks), None)

    def _physical(self, blocks: Tensor) -> Tensor:
        """Return the physical numbers of blocks (B, X, k) that are numbered within their rows."""
        table = self._table.physical
        if table is None:
            return blocks
        numbers = table.to(blocks.device)[:, None].expand(-1, blocks.shape[1], -1)
        return numbers.gather(2, blocks)

    def again(self, blocks: Tensor, places: Tensor) -> Recalled:
        """Recall blocks (B, X, k) of an earlier step again, which are still in their slots."""
        assert self._store is not None
        arrive = self._store.arriving(self._physical(blocks), places)
        return Recalled(blocks, None, places, arrive)

    def _fetch(self, blocks: Tensor, scores: Tensor | None) -> Recalled:
        assert self._store is not None
        physical = self._physical(blocks)
        places, arrive = self._store.fetch(physical)
        if self._store.is_near and self._latest is not None:  # `equal` needs no wait for a GPU
            before, latest = self._latest
            if torch.equal(before, physical):
                pages = latest.pages
                arrive = lambda: pages  # noqa: E731
        recalled = Recalled(blocks, scores, places, arrive)
        self._latest = physical, recalled
        return recalled

    def tiles(self, tokens: int) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Yield all sealed blocks in order, in tiles of about `tokens` tokens.

        Yields:
            The number of a tile's first block, keys (B, G, n * block_size, D), unrotated, and
            values (B, G, n * block_size, Dv).
        """
        if self._store is None:
            return
        table = self._table.physical
        if table is None:
            table = torch.arange(self.blocks)[None]
        step = max(1, tokens // self.settings.block_size)
        for first in range(0, self.blocks, step):
            yield first, *self._store.read(table[:, first : first + step])

    def observe(self, mass: Tensor) -> None:
        """Add the attention mass (B, H, T) that the newest T tokens received."""
        newest = mass.shape[2]
        self.recent["mass"][:, :, len(self.recent) - newest :].add_(mass)

    @property
    def needs_recalled_mass(self) -> bool:
        """Whether the eviction policy uses the attention mass that recalled blocks receive."""
        return self._store is not None and self._store.slots.policy.needs_mass

    def observe_recalled(self, recalled: Recalled, mass: Tensor) -> None:
        """Add the attention mass (B, H, k * block_size) that the recalled tokens received."""
        assert self._store is not None
        per_block = mass.unflatten(2, (-1, self.settings.block_size)).sum(-1)
        self._store.observed(recalled.places, per_block)

    def settle(self) -> None:
        """Move tokens beyond the `keep` newest out of `recent`: first into sinks, then blocks."""
        left = len(self.recent) - self.keep
        if left <= 0:
            return
        left -= self._fill_sinks(left)
        whole = left // self.settings.block_size
        if whole:
            self._seal(whole)

    def _fill_sinks(self, left: int) -> int:
        assert self.sinks is not None
        sink_k, sink_v = self.sinks
        taken = min(self.settings.n_init - sink_k.shape[2], left)
        if taken > 0:
            k, v = self.recent["k"][:, :, :taken], self.recent["v"][:, :, :taken]
            self.sinks = torch.cat((sink_k, k), 2), torch.cat((sink_v, v), 2)
            self.recent.drop(taken)
        return taken

    def _seal(self, count: int) -> None:
        """Seal the oldest tokens of `recent` as `count` blocks."""
        size = self.settings.block_size
        k, v, mass = (
            self.recent[stream][:, :, : count * size].unflatten(2, (count, size))
            for stream in ("k", "v", "mass")
        )
        if self._store is None:
            shape = PageShape(k.shape[1], size, k.shape[4], v.shape[4], k.dtype)
            self._store = self._open_store(shape, mass.shape[1], k.shape[0], k.device)
            self._table.store = self._store
        self._table.add(self._store.add(k, v, self.summary.checked_vectors(k, mass)))
        self.recent.drop(count * size)

    def _open_store(
        self, shape: PageShape, heads: int, rows: int, device: torch.device
    ) -> BlockStore:
        selection, pages = self.selection(heads, shape.heads), self.summary.pages
        return BlockStore(self.settings, shape, selection, pages, rows, device, self._slots)

    def restore(self, state: State, blocks: BlockReader) -> None:
        """See `Stateful.restore`."""
        name = state.parts["_table"].numbers["store"]
        if name is not None:
            self._store = self._table.store = blocks.open(name, self._open_store)
        super().restore(state, blocks)

    def select_rows(self, rows: Tensor) -> None:
        """See `Stateful.select_rows`."""
        super().select_rows(rows)
        if self._store is not None:
            self._store.make_room(len(rows))

    def stats(self) -> MemoryStats:
        """Return the sizes of the memory and the counts of transfers so far."""
        store = self._store
        if store is None:
            return MemoryStats(self.seen, device_bytes=self.nbytes)
        recalled = store.cache_bytes
        if not recalled and self._latest is not None:
            recalled = self._latest[1].k.nbytes + self._latest[1].v.nbytes
        traffic = store.slots.traffic()
        on_host, on_disk = store.block_bytes()
        return MemoryStats(
            tokens=self.seen,
            blocks=self.blocks,
            device_bytes=self.nbytes + recalled,
            host_bytes=on_host,
            disk_bytes=on_disk,
            index_bytes=store.index.nbytes,
            hits=int(traffic.hits),
            misses=int(traffic.misses),
            loads=int(traffic.misses),
            evictions=int(traffic.evictions),
        )
