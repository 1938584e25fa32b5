"""What one layer remembers of some rows: sinks, the newest tokens, and sealed blocks.

The memory knows *what* is kept and where it lies. It never sees a position or a softmax: keys come
in as they are, streams it does not understand travel with them, and the attention above says how
many of the newest tokens must stay and how much mass each received.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from inf_llm.memory.archive import Archive
from inf_llm.memory.index import EarlyFound
from inf_llm.memory.recent import Recent
from inf_llm.memory.represent import most_attended_mean
from inf_llm.memory.stats import MemoryStats
from inf_llm.memory.store import PageShape
from inf_llm.settings import InfLLMSettings
from inf_llm.state import State, Stateful


@dataclass(frozen=True)
class Recalled:
    """Blocks brought back for one execution block.

    Keys and values may still be on their way; they are waited for when somebody asks for them.

    Attributes:
        blocks: their numbers in each row (B, X, k), ascending; X is 1, or H with `perhead`.
        scores: what they scored (B, X, k), or None where every block was taken.
        places: where they are on the device (B, X, k).
        arrive: gives keys and values once they are there; called once.
    """

    blocks: Tensor
    scores: Tensor | None
    places: Tensor
    arrive: Callable[[], tuple[Tensor, Tensor]]

    @functools.cached_property
    def pages(self) -> tuple[Tensor, Tensor]:
        """Keys and values as they arrived."""
        return self.arrive()

    @property
    def k(self) -> Tensor:
        """Keys (B, Y, k * block_size, D), Y key heads, or Y = H query heads with `perhead`."""
        return self.pages[0]

    @property
    def v(self) -> Tensor:
        """Values (B, Y, k * block_size, Dv)."""
        return self.pages[1]

    def of_rows(self, rows: Tensor) -> Recalled:
        """The same for other rows (a 1-D index; rows may repeat or vanish)."""

        def own(part: Tensor) -> Tensor:
            return part.index_select(0, rows.to(part.device))

        scores = None if self.scores is None else own(self.scores)
        pages = own(self.k), own(self.v)
        return Recalled(own(self.blocks), scores, own(self.places), lambda: pages)


class BlockMemory(Stateful):
    """Rows of equal length; see the module's text.

    Args:
        settings: sizes and policies.
        keep: newest tokens that are never sealed.
        slots: as for `Archive`.
    """

    fixed = ("sinks",)
    numbers = ("seen",)
    parts = ("recent", "_table")
    derived = ("_latest",)

    def __init__(self, settings: InfLLMSettings, keep: int, slots: bool | None = None) -> None:
        self.settings = settings
        self.keep = keep
        self._slots = slots
        held = keep + settings.block_size + settings.exc_block_size
        self.recent = Recent(held + held // 4, sums=("mass",))
        self.sinks: tuple[Tensor, Tensor] | None = None  # (B, G, n, D), (B, G, n, Dv)
        self.seen = 0
        self._archive: Archive | None = None
        self._table = Table()
        self._latest: tuple[Tensor, Recalled] | None = None

    @property
    def blocks(self) -> int:
        """Sealed blocks of every row."""
        return len(self._table)

    @property
    def table(self) -> Tensor | None:
        """Physical numbers of all rows' blocks (B, N); None where they are simply 0 to N - 1."""
        return self._table.physical

    @property
    def archive(self) -> Archive | None:
        """Where the sealed blocks are; None before the first is sealed."""
        return self._archive

    def append(self, k: Tensor, v: Tensor, heads: int, **more: Tensor) -> None:
        """New tokens: keys (B, G, L, D), values (B, G, L, Dv), and streams to keep beside them.

        `heads` is the number of query heads, H, each of which counts mass for itself.
        """
        mass = k.new_zeros(k.shape[0], heads, k.shape[2], dtype=torch.float32)
        self.recent.append(k=k, v=v, mass=mass, **more)
        self.seen += k.shape[2]
        if self.sinks is None:
            self.sinks = k[:, :, :0], v[:, :, :0]

    @property
    def gains_from_several(self) -> bool:
        """Whether `search_several` makes the searches of `recall` faster."""
        if self._archive is None or self._table.physical is not None:
            return False
        return self._archive.gains_from_several

    def search_several(self, queries: Tensor) -> list[EarlyFound]:
        """What queries (n, 1, H, D) find among the blocks sealed so far, each for its `recall`."""
        assert self._archive is not None
        total = self.blocks
        found = self._archive.search_several(queries, min(self.settings.topk, total), total)
        return [EarlyFound(each, total) for each in found]

    def recall(self, query: Tensor, early: EarlyFound | None = None) -> Recalled | None:
        """The blocks that match query (B, H, D) best; None while nothing is sealed.

        `early` is what this query found in `search_several`: only later blocks are searched then.
        """
        if self._archive is None or not self.blocks:
            return None
        topk = min(self.settings.topk, self.blocks)
        table = self._table.physical
        if topk == self.blocks:
            rows, groups = query.shape[0], self._archive.groups
            blocks = torch.arange(topk, device=query.device).expand(rows, groups, topk)
            scores = None
        else:
            blocks, scores = self._archive.search(query, topk, self.blocks, table, early)
        return self._fetch(blocks, scores, table)

    def _fetch(self, blocks: Tensor, scores: Tensor | None, table: Tensor | None) -> Recalled:
        assert self._archive is not None
        physical = blocks
        if table is not None:
            own = table.to(blocks.device)[:, None].expand(-1, blocks.shape[1], -1)
            physical = own.gather(2, blocks)
        places, arrive = self._archive.fetch(physical)
        if self._archive.at_home and self._latest is not None:  # where asking is free
            before, latest = self._latest
            if torch.equal(before, physical):
                pages = latest.pages
                arrive = lambda: pages  # noqa: E731
        recalled = Recalled(blocks, scores, places, arrive)
        self._latest = physical, recalled
        return recalled

    def observe(self, mass: Tensor) -> None:
        """The newest T tokens received this much attention mass (B, H, T)."""
        newest = mass.shape[2]
        self.recent["mass"][:, :, len(self.recent) - newest :].add_(mass)

    @property
    def watches_recalled(self) -> bool:
        """Whether the eviction policy wants to know the mass that recalled blocks received."""
        return self._archive is not None and self._archive.residency.policy.needs_mass

    def observe_recalled(self, recalled: Recalled, mass: Tensor) -> None:
        """The recalled tokens received this much attention mass (B, H, k * block_size)."""
        assert self._archive is not None
        per_block = mass.unflatten(2, (-1, self.settings.block_size)).sum(-1)
        self._archive.observed(recalled.places, per_block)

    def settle(self) -> None:
        """Let go of tokens that must no longer stay: the first become sinks, then blocks."""
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
        """Make the oldest tokens into `count` blocks."""
        size = self.settings.block_size
        k, v, mass = (
            self.recent[stream][:, :, : count * size].unflatten(2, (count, size))
            for stream in ("k", "v", "mass")
        )
        if self._archive is None:
            self._archive = self._open_archive(k, v, mass.shape[1])
            self._table.archive = self._archive
        representatives = most_attended_mean(k, mass, self.settings.repr_topk)
        self._table.add(self._archive.add(k, v, representatives))
        self.recent.drop(count * size)

    def _open_archive(self, k: Tensor, v: Tensor, heads: int) -> Archive:
        shape = PageShape(k.shape[1], k.shape[3], k.shape[4], v.shape[4], k.dtype)
        return Archive(self.settings, shape, heads, k.shape[0], k.device, self._slots)

    def select_rows(self, rows: Tensor) -> None:
        """See `Stateful.select_rows`."""
        super().select_rows(rows)
        if self._archive is not None:
            self._archive.make_room(len(rows))

    def stats(self) -> MemoryStats:
        """What is held and what recalling cost so far."""
        archive = self._archive
        if archive is None:
            return MemoryStats(self.seen, device_bytes=self.nbytes)
        recalled = archive.slot_bytes
        if not recalled and self._latest is not None:
            recalled = self._latest[1].k.nbytes + self._latest[1].v.nbytes
        traffic = archive.residency.traffic
        return MemoryStats(
            tokens=self.seen,
            blocks=self.blocks,
            device_bytes=self.nbytes + recalled,
            host_bytes=archive.host_bytes,
            index_bytes=archive.index.nbytes,
            hits=int(traffic.hits),
            misses=int(traffic.misses),
            loads=int(traffic.misses),
            evictions=int(traffic.evictions),
        )


class Table(Stateful):
    """Which physical block each block of each row is: (B, N), held until this table is gone."""

    def __init__(self) -> None:
        self.archive: Archive | None = None
        self._state: list[Tensor] = [torch.empty(1, 0, dtype=torch.int64)]
        self._count = 0
        self._plain = True
        self._finalizer: weakref.finalize | None = None

    def __len__(self) -> int:
        return self._count

    @property
    def physical(self) -> Tensor | None:
        """(B, N) on the host; None where every row's blocks are simply 0 to N - 1."""
        return None if self._plain else self._state[0][:, : self._count]

    def add(self, numbers: Tensor) -> None:
        """Blocks (B, n), held already, follow those that are there."""
        rows, count = numbers.shape
        room = self._state[0]
        if self._count + count > room.shape[1]:
            fresh = torch.empty(rows, max(64, 2 * (self._count + count)), dtype=torch.int64)
            if self._count:
                fresh[:, : self._count] = room[:, : self._count]
            self._state[0] = fresh
        following = torch.arange(self._count, self._count + count)
        self._plain = self._plain and rows == 1 and torch.equal(numbers[0], following)
        self._state[0][:, self._count : self._count + count] = numbers
        self._count += count
        self._watch()

    def _watch(self) -> None:
        """Release what is held when this table is garbage."""
        if self._finalizer is not None:
            self._finalizer.detach()
        self._finalizer = weakref.finalize(self, _release, self.archive, self._held())
        self._finalizer.atexit = False

    def _held(self) -> Tensor:
        return self._state[0][:, : self._count]

    def fork(self) -> Table:
        """Another holder of the same blocks."""
        twin = Table()
        twin.archive, twin._count, twin._plain = self.archive, self._count, self._plain
        twin._state = [self._state[0].clone()]
        if self.archive is not None and self._count:
            self.archive.home.hold(twin._held().flatten())
            twin._watch()
        return twin

    def checkpoint(self) -> State:
        """The length now; it holds no block."""
        return State({}, {"count": self._count}, {})

    def rollback(self, state: State) -> None:
        """See `Stateful.rollback`."""
        self.cut(state.numbers["count"])

    def cut(self, count: int) -> None:
        """Let go of all blocks after the first `count` of each row."""
        if count == self._count:
            return
        gone = self._state[0][:, count : self._count].flatten()
        self._count = count
        self._watch()
        if self.archive is not None:
            self.archive.release(gone)

    def select_rows(self, rows: Tensor) -> None:
        """See `Stateful.select_rows`."""
        rows = rows.cpu()
        if not self._count or self.archive is None:
            self._state = [torch.empty(1, 0, dtype=torch.int64)]
            return
        before = self._held().flatten()
        self._state[0] = self._state[0].index_select(0, rows)
        self._plain = self._plain and len(rows) == 1
        self.archive.home.hold(self._held().flatten())
        self._watch()
        self.archive.release(before)


def _release(archive: Archive | None, numbers: Tensor) -> None:
    if archive is not None:
        archive.release_later(numbers.flatten())
