"""The store of sealed blocks: storage, search and transfer, shared by several memories.

A memory and its branches (beams, copies, sessions over one document) keep their blocks in one
store. Each has its own table of the blocks that belong to its rows. The store combines an allocator
of block numbers, a codec, a tier, a search index, and a cache on the device.

A store transfers *units*: whole blocks where one choice of blocks serves all heads, and single
pages where heads choose for themselves.
"""

from __future__ import annotations

import functools
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from inf_llm.choice import Choice
from inf_llm.memory.allocator import BlockAllocator
from inf_llm.memory.codec import Codec, PageShape, Planes
from inf_llm.memory.device_cache import DeviceCache
from inf_llm.memory.evict import Policy
from inf_llm.memory.file_numbers import FileNumbers
from inf_llm.memory.index import Found
from inf_llm.memory.mapped import MappedBlocks, MappedTier, joined
from inf_llm.memory.search import Query, make_search
from inf_llm.memory.selection import Selection
from inf_llm.memory.slot_table import HostSlotTable, SlotTable
from inf_llm.memory.tiers import Tier
from inf_llm.not_picklable import NotPicklable
from inf_llm.settings import InfLLMSettings
from inf_llm.state import State
from inf_llm.variants import CODEC, EVICTION, TIER

_AT_ONCE = 4096  # most pages in one copy from mapped files to page-locked memory


class BlockStore(NotPicklable):
    """The sealed blocks of one layer.

    Args:
        settings: sizes, policy and index.
        shape: sizes and dtype of one block.
        selection: the selection rule.
        pages: summary vectors per block and head.
        rows: batch rows that recall at once.
        device: device on which attention is computed.
        slots: whether recalled units are copied to a cache on the device, with
            `max_cached_block` slots per row and chooser. None means yes on all devices but the
            CPU. Without the cache, attention reads from the tier, and the slot table only counts
            the traffic that a cache would have.
    """

    def __init__(
        self,
        settings: InfLLMSettings,
        shape: PageShape,
        selection: Selection,
        pages: int,
        rows: int,
        device: torch.device,
        slots: bool | None = None,
    ) -> None:
        self.shape = shape
        self.selection = selection
        self._device = device
        self.allocator = BlockAllocator()
        self.codec: Codec = settings.codec.build(CODEC, shape)
        pinned = settings.pin_memory and device.type == "cuda"
        chosen = settings.tier or Choice("pinned" if pinned else "host")
        self.tier: Tier = chosen.build(TIER, self.codec.planes)
        self.index = make_search(settings.index, selection, pages)
        self._settings = settings
        key_heads = selection.key_heads
        self._together = shape.heads if key_heads is None else 1
        self._key_heads = None if key_heads is None else key_heads[:, None].to(device)
        self._copies = slots if slots is not None else device.type != "cpu"
        self._first_pages = torch.arange(self._together, device=device)[:, None]
        self.rows = 0
        self._vanished: deque[Tensor] = deque()
        self.releasing = threading.RLock()
        self.file_numbers: dict[str, FileNumbers] = {}
        """Numbers of this store's blocks in the files of a saved memory, by id of the memory."""
        self.make_room(rows)

    def make_room(self, rows: int) -> None:
        """Enlarge the slot table and the cache for `rows` rows that recall at once.

        A larger cache starts empty. The counts of traffic go on.
        """
        if rows <= self.rows:
            return
        settings, so_far = self._settings, self.slots.traffic() if self.rows else None
        places = rows * self.selection.choosers * settings.max_cached_block
        policy: Policy = settings.eviction.build(EVICTION)
        self.rows = rows
        self.slots: SlotTable | HostSlotTable = HostSlotTable(places, policy, so_far)
        if self._copies:
            self.slots = SlotTable(places, policy, self._device, so_far)
        self._open_cache()

    def _open_cache(self) -> None:
        """Allocate an empty device cache with the size of the slot table, if one is used."""
        self._cache: DeviceCache | None = None
        if self._copies:
            places = self.rows * self.selection.choosers * self._settings.max_cached_block
            overlap, planes = self._settings.async_global_stream, self.codec.planes
            self._cache = DeviceCache(
                self.tier, planes, places, self._together, self._device, overlap
            )

    def add(self, k: Tensor, v: Tensor, summaries: Tensor) -> Tensor:
        """Seal n blocks of every row.

        Args:
            k: keys (B, G, n, tokens, D), unrotated.
            v: values (B, G, n, tokens, Dv).
            summaries: (B, H, n, P, D), or (B, G, n, P, D) where query heads share them.

        Returns:
            Physical numbers of the blocks (B, n), on the host.
        """
        self.sweep()
        B, _, n = k.shape[:3]
        numbers = self._allocate(B * n)
        planes = self.codec.encode(*(x.transpose(1, 2).flatten(0, 2) for x in (k, v)))
        self.tier.write(self._pages_of(numbers), planes)
        self.index.put(numbers, summaries.transpose(1, 2).flatten(0, 1))
        return numbers.view(B, n)

    def _allocate(self, count: int) -> Tensor:
        """Return `count` block numbers (count,), ascending, and make room for their pages."""
        numbers = self.allocator.allocate(count)
        try:
            self.tier.make_room((int(numbers[-1]) + 1) * self.shape.heads)
        except BaseException:
            self.allocator.release(numbers)
            raise
        return numbers

    def _pages_of(self, numbers: Tensor) -> Tensor:
        """Return the numbers (n * G,) of all pages of blocks (n,)."""
        heads = torch.arange(self.shape.heads, device=numbers.device)
        return (numbers[:, None] * self.shape.heads + heads).flatten()

    def search(self, query: Query, topk: int, total: int, table: Tensor | None) -> Found:
        """Return numbers and scores (B, X, topk) of the best blocks; see `Search.search`."""
        return self.index.search(query, topk, total, table)

    @staticmethod
    def search_each(
        stores: Sequence[BlockStore],
        query: Query,
        topk: int,
        totals: Sequence[int],
        tables: Sequence[Tensor | None],
    ) -> list[Found]:
        """See `Search.search_each`; one store for each row."""
        indexes = [store.index for store in stores]
        return type(indexes[0]).search_each(indexes, query, topk, totals, tables)

    def fetch(self, blocks: Tensor) -> tuple[Tensor, Callable[[], tuple[Tensor, Tensor]]]:
        """Start the transfer of physical blocks (B, X, k) to the compute device.

        Returns:
            The slots of the blocks (B, X, k), for `observed`, and a function that waits for the
            transfer and returns keys (B, Y, k * tokens, D) and values (B, Y, k * tokens, Dv).
            Y = G key heads, or Y = H query heads where each query head chooses for itself.
        """
        units = self._units(blocks)
        if isinstance(self.slots, HostSlotTable):
            slots = units  # real slots are needed only where mass decides evictions
            if self.slots.policy.needs_mass:
                slots = self.slots.admit(units.flatten()).view_as(units)
            else:
                self.slots.note(units.flatten())
            return slots, self.arriving(blocks, slots)
        assert self._cache is not None
        total = self.allocator.count * self.units_of_block
        wanted = units.flatten()
        slots, missing = self.slots.admit(wanted, total)
        self._cache.load(wanted, slots, missing)
        slots = slots.view_as(units)
        return slots, self.arriving(blocks, slots)

    def arriving(self, blocks: Tensor, slots: Tensor) -> Callable[[], tuple[Tensor, Tensor]]:
        """Return a function that reads blocks (B, X, k) which `fetch` has put into `slots`."""
        if self._cache is None:
            return functools.partial(self._read, self.tier.read, self._units(blocks))
        return functools.partial(self._read, self._cache.read, slots)

    def read(self, blocks: Tensor) -> tuple[Tensor, Tensor]:
        """Read physical blocks (B, n) from the tier; the device cache is not used or changed.

        Returns:
            Keys (B, G, n * tokens, D) and values (B, G, n * tokens, Dv) on the compute device.
        """
        B, n = blocks.shape
        heads = torch.arange(self.shape.heads)[:, None]
        pages = blocks[:, None] * self.shape.heads + heads  # (B, G, n)
        planes = self.tier.read(pages.flatten())
        k, v = self.codec.decode(tuple(plane.to(self._device) for plane in planes))
        tokens = n * self.shape.tokens
        return k.view(B, len(heads), tokens, -1), v.view(B, len(heads), tokens, -1)

    def _read(self, read: Callable[[Tensor], Planes], units: Tensor) -> tuple[Tensor, Tensor]:
        """Read keys and values of units (B, X, k) from the cache or the tier; see `fetch`."""
        places = self._pages(units)
        rows, heads, choices = places.shape
        k, v = self.codec.decode(read(places.flatten()))
        tokens = choices * self.shape.tokens
        return k.reshape(rows, heads, tokens, -1), v.reshape(rows, heads, tokens, -1)

    @property
    def is_near(self) -> bool:
        """Whether blocks are read directly from the tier, without a cache on the device."""
        return self._cache is None

    def _units(self, blocks: Tensor) -> Tensor:
        """Return the units of blocks (B, X, k): whole blocks, or the pages that choosers read."""
        return blocks if self._key_heads is None else blocks * self.shape.heads + self._key_heads

    def _pages(self, units: Tensor) -> Tensor:
        """Return the pages (B, Y, k) of units (B, X, k), with one row for each key head."""
        if self._together == 1:
            return units
        return torch.add(self._first_pages, units, alpha=self._together)

    def observed(self, slots: Tensor, mass: Tensor) -> None:
        """Pass the attention mass (B, H, k) of `slots` (B, X, k) from `fetch` to the policy."""
        if not self.slots.policy.needs_mass:
            return
        self.slots.observed(slots.flatten(), self.selection.mass(mass).flatten())

    @property
    def units_of_block(self) -> int:
        """Number of units in a block."""
        return self.shape.heads // self._together

    def hold(self, numbers: Tensor) -> None:
        """Add one holder to each of these blocks (n,)."""
        self.allocator.hold(numbers)

    def release(self, numbers: Tensor) -> None:
        """Remove one holder from each of these blocks (n,), and forget blocks without a holder."""
        with self.releasing:
            gone = self.allocator.release(numbers)
            for numbering in self.file_numbers.values() if len(gone) else ():
                numbering.forget(gone)
        if len(gone):
            units = gone if self.units_of_block == 1 else self._pages_of(gone)
            self.slots.forget(units)

    def release_later(self, numbers: Tensor) -> None:
        """Queue a release for `sweep`: a finalizer, which may run at any time, calls this."""
        self._vanished.append(numbers)

    def sweep(self) -> None:
        """Release the blocks that `release_later` has queued."""
        while self._vanished:
            self.release(self._vanished.popleft())

    def image(self, numbers: Tensor) -> Tensor:
        """Return blocks (n,) in their file format, (n, bytes) uint8; see `mapped.joined`."""
        return joined(self.tier.read(self._pages_of(numbers)), self.shape.heads)

    def load(
        self, mapped: MappedBlocks, summaries: Mapping[str, Sequence[Tensor]], slots: State
    ) -> None:
        """Use blocks in files as the blocks of this store, which must be empty.

        The store holds these blocks itself, so they exist as long as the store.

        Args:
            mapped: the blocks.
            summaries: summaries of all blocks, as `Search.dump` returns them, in parts.
            slots: slot table, as `SlotTable.dump` returns it.
        """
        numbers = self.allocator.allocate(mapped.count)
        if self.tier.pinned:  # a GPU can read page-locked memory, not mapped files
            pages = self._pages_of(numbers)
            self.tier.make_room(len(pages))
            for part in pages.split(_AT_ONCE):
                self.tier.write(part, mapped.read(part))
        else:
            self.tier = MappedTier(self.codec.planes, mapped, self.tier)
            self._open_cache()
        self.index.restore(summaries, self._device)
        units, places = self.slots.restore(slots)
        if self._cache is not None and len(units):
            every = torch.ones_like(units, dtype=torch.bool)
            self._cache.load(units, places, every)

    def used(self) -> int:
        """Return the number of blocks with a holder."""
        self.sweep()
        return self.allocator.used

    @property
    def most_bytes(self) -> int:
        """Bytes of host memory at the largest number of blocks so far: a tier never shrinks."""
        page = self.codec.block_bytes // self.shape.heads
        return self.tier.in_memory(self.allocator.count * self.shape.heads) * page

    def block_bytes(self) -> tuple[int, int]:
        """Return the bytes of the blocks in host memory, and the bytes on a disk."""
        blocks, page = self.used(), self.codec.block_bytes // self.shape.heads
        here = self.tier.in_memory(blocks * self.shape.heads) * page
        return here, blocks * self.codec.block_bytes - here

    @property
    def cache_bytes(self) -> int:
        """Bytes of the device cache."""
        return 0 if self._cache is None else self._cache.nbytes
