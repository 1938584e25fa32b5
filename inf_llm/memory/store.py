"""Where sealed blocks live: a home in large slabs, and slots on the device for those in use.

A block has a physical number. Its keys and values are kept as one *page* per key head, so that a
row can recall whole blocks and a single head can recall its own pages from the same home. Nothing
here knows rows, order or meaning; a block is freed when nobody holds it any more.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

import torch
from torch import Tensor

from inf_llm.memory.load import can_load, load_pages
from inf_llm.unsaved import Unsaved

_SLAB_BYTES = 64 << 20  # of one that stays where it is
_FIRST_BYTES = 1 << 20  # of one that moves when it is full
_FEW = 256  # pages that are read one by one: a slab at a time would take many more steps


@dataclass(frozen=True)
class PageShape:
    """What one block holds: `heads` pages of `tokens` keys and values."""

    heads: int
    tokens: int
    key_width: int
    value_width: int
    dtype: torch.dtype

    @property
    def block_bytes(self) -> int:
        """Bytes of one block, keys and values of all heads."""
        width = self.key_width + self.value_width
        return self.heads * self.tokens * width * self.dtype.itemsize


class Home(Unsaved):
    """All sealed blocks, in slabs of equal size: one, where it can be.

    On the host it is one slab that moves to twice the room when it is full, so that what is
    reserved is at most twice what was needed, and reading stays one step. Page-locked slabs stay
    where they are, for a GPU knows their addresses.

    Args:
        shape: what one block holds.
        device: where the slabs are, host memory as a rule.
        pinned: page-locked, so that a GPU can copy from it without waiting.
    """

    def __init__(self, shape: PageShape, device: torch.device, pinned: bool) -> None:
        self.shape = shape
        self._device = device
        self.pinned = pinned
        self._slabs: tuple[tuple[Tensor, Tensor], ...] = ()  # replaced as a whole, never changed
        room = _FIRST_BYTES if self.moves else _SLAB_BYTES
        self._per_slab = max(1, room // shape.block_bytes)
        self._addresses: tuple[Tensor, Tensor] | None = None
        self._held = torch.zeros(0, dtype=torch.int32)  # holders of every block
        self._free: list[int] = []
        self._lock = threading.Lock()
        self.count = 0

    @property
    def moves(self) -> bool:
        """Whether there is one slab, which moves when it is full, instead of many that stay."""
        return not self.pinned

    def allocate(self, count: int) -> Tensor:
        """Numbers (count,) of blocks that are free, ascending; the caller holds each once."""
        with self._lock:
            reused = sorted(self._free[-count:])
            end = self.count + count - len(reused)
            self._make_room(end)
            del self._free[len(self._free) - len(reused) :]
            numbers = torch.tensor([*reused, *range(self.count, end)], dtype=torch.int64)
            self.count = end
            if self.count > len(self._held):
                more = self._held.new_zeros(2 * self.count - len(self._held))
                self._held = torch.cat((self._held, more))
            self._held[numbers] += 1
        return numbers

    def _make_room(self, count: int) -> None:
        """See that so many blocks have a place; others may be reading meanwhile."""
        if not self.moves:
            while len(self._slabs) * self._per_slab < count:
                self._slabs = (*self._slabs, self._slab(self._per_slab))
        elif not self._slabs:
            self._move_to(max(count, self._per_slab))
        elif count > self._per_slab:
            self._move_to(max(count, 2 * self._per_slab))

    def _move_to(self, room: int) -> None:
        """Move the only slab, if there is one, to where there is room for so many blocks."""
        roomy = self._slab(room)
        for slab in self._slabs:
            for old, new in zip(slab, roomy, strict=True):
                new[: len(old)] = old
        self._slabs, self._per_slab = (roomy,), room

    def _slab(self, blocks: int) -> tuple[Tensor, Tensor]:
        """Room for keys and for values; where nothing is written the system gives no memory."""
        shape, rows = self.shape, blocks * self.shape.heads
        widths = (shape.tokens * shape.key_width, shape.tokens * shape.value_width)
        k, v = (
            torch.empty(rows, width, dtype=shape.dtype, device=self._device, pin_memory=self.pinned)
            for width in widths
        )
        return k, v

    def addresses(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Where the slabs of keys and those of values lie, for programs on a device."""
        if self._addresses is None or len(self._addresses[0]) != len(self._slabs):
            k, v = ([slab[part].data_ptr() for slab in self._slabs] for part in (0, 1))
            self._addresses = torch.tensor(k, device=device), torch.tensor(v, device=device)
        return self._addresses

    @property
    def rows_per_slab(self) -> int:
        """Pages in a slab."""
        return self._per_slab * self.shape.heads

    def hold(self, numbers: Tensor) -> None:
        """One more holder for each of these blocks; a number may stand there several times."""
        with self._lock:
            self._held.index_add_(0, numbers, torch.ones_like(numbers, dtype=torch.int32))

    def release(self, numbers: Tensor) -> Tensor:
        """One holder less for each; the blocks (n,) that nobody holds now are free again."""
        with self._lock:
            self._held.index_add_(0, numbers, -torch.ones_like(numbers, dtype=torch.int32))
            touched = numbers.unique()
            gone = touched[self._held[touched] == 0]
            self._free.extend(gone.tolist())
        return gone

    @property
    def used(self) -> int:
        """Blocks that somebody holds."""
        return self.count - len(self._free)

    def write(self, numbers: Tensor, k: Tensor, v: Tensor) -> None:
        """Fill blocks (n,) with keys (n, G, tokens, D) and values (n, G, tokens, Dv)."""
        with self._lock:  # a slab that moves must not leave this behind
            self._write(numbers, k, v)

    def _write(self, numbers: Tensor, k: Tensor, v: Tensor) -> None:
        heads = self.shape.heads
        slab_of = numbers // self._per_slab
        for slab in slab_of.unique().tolist():
            here = slab_of == slab
            local = numbers[here] - slab * self._per_slab
            for target, source in zip(self._slabs[slab], (k, v), strict=True):
                blocks = target.view(self._per_slab, heads, *source.shape[2:])
                chosen = source[here.to(source.device)]
                if int(local[-1]) - int(local[0]) + 1 == len(local):
                    blocks[int(local[0]) : int(local[-1]) + 1].copy_(chosen)
                else:
                    blocks[local] = chosen.to(blocks.device)

    def read(self, pages: Tensor) -> tuple[Tensor, Tensor]:
        """Pages (n,) as rows: keys (n, tokens * D) and values (n, tokens * Dv)."""
        slabs = self._slabs
        if len(slabs) == 1:
            k, v = slabs[0]
            return k.index_select(0, pages), v.index_select(0, pages)
        rows = self.rows_per_slab
        if len(pages) <= _FEW:
            lie = [divmod(page, rows) for page in pages.tolist()]
            return (
                torch.cat([self._slabs[slab][0][row : row + 1] for slab, row in lie]),
                torch.cat([self._slabs[slab][1][row : row + 1] for slab, row in lie]),
            )
        slab_of = pages // rows
        k, v = (slab.new_empty(len(pages), slab.shape[1]) for slab in self._slabs[0])
        for slab in slab_of.unique().tolist():
            at = (slab_of == slab).nonzero()[:, 0]
            local = pages[at] - slab * rows
            k[at] = self._slabs[slab][0].index_select(0, local)
            v[at] = self._slabs[slab][1].index_select(0, local)
        return k, v

    @property
    def nbytes(self) -> int:
        """Bytes of the blocks that somebody holds."""
        return self.used * self.shape.block_bytes


class Slots:
    """Room on the device for a fixed number of pages, filled from the home.

    Args:
        home: where pages come from.
        pages: how many fit.
        device: where they are.
        overlap: copy on a stream of its own, so that computing need not wait.
    """

    def __init__(self, home: Home, pages: int, device: torch.device, overlap: bool) -> None:
        shape = home.shape
        self._home = home
        self._k = torch.empty(
            pages, shape.tokens * shape.key_width, dtype=shape.dtype, device=device
        )
        self._v = torch.empty(
            pages, shape.tokens * shape.value_width, dtype=shape.dtype, device=device
        )
        self._direct = can_load(device, home.pinned)
        self._stream = torch.cuda.Stream(device) if overlap and device.type == "cuda" else None

    def load(self, pages: Tensor, places: Tensor, missing: Tensor) -> None:
        """Copy those pages (n,) of the home that are missing to places (n,) here."""
        if self._stream is not None:  # what is read of the slots must have been read
            self._stream.wait_stream(torch.cuda.current_stream(self._k.device))
            for used in (pages, places, missing):
                used.record_stream(self._stream)
        if self._direct:
            rows = self._home.rows_per_slab
            slabs = self._home.addresses(self._k.device)
            with torch.cuda.stream(self._stream):
                for slab, target in zip(slabs, (self._k, self._v), strict=True):
                    load_pages(slab, rows, target, pages, places, missing)
            return
        pages, places = pages[missing], places[missing]
        if not len(pages):
            return
        k, v = self._home.read(pages.to("cpu"))
        with torch.cuda.stream(self._stream):
            self._k[places] = k.to(self._k.device, non_blocking=True)
            self._v[places] = v.to(self._v.device, non_blocking=True)

    def read(self, places: Tensor) -> tuple[Tensor, Tensor]:
        """What is at places (n,), as rows of pages, once copies under way have arrived."""
        if self._stream is not None:
            torch.cuda.current_stream(self._k.device).wait_stream(self._stream)
        return self._k.index_select(0, places), self._v.index_select(0, places)

    @property
    def nbytes(self) -> int:
        """Bytes of the room."""
        return self._k.nbytes + self._v.nbytes
