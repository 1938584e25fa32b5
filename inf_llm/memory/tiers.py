"""Tiers: storage of pages outside the compute device, in ordinary or page-locked host memory."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Sequence

import torch
from torch import Tensor

from inf_llm.choice import Choice
from inf_llm.errors import SettingsError
from inf_llm.memory.codec import Plane, Planes
from inf_llm.native import loops
from inf_llm.not_picklable import NotPicklable
from inf_llm.variants import TIER

_SLAB_BYTES = 64 << 20  # size of a page-locked slab, which is never moved
_FIRST_BYTES = 1 << 16  # first size of the slab of `HostTier`, and its least growth
_FEW = 256  # most pages that are read one by one; slab by slab, a few would take more steps


class Tier(NotPicklable, ABC):
    """Storage of numbered pages.

    Args:
        planes: formats of the planes of a page.

    Attributes:
        pinned: whether a GPU can read the pages at their addresses; see `SlabTier.addresses`.
    """

    pinned = False

    def __init__(self, planes: Sequence[Plane]) -> None:
        self._planes = tuple(planes)

    @abstractmethod
    def make_room(self, pages: int) -> None:
        """Make room for pages 0 to `pages` - 1; other threads may read pages at the same time."""

    @abstractmethod
    def write(self, pages: Tensor, planes: Planes) -> None:
        """Write rows (n, width) of every plane to pages (n,), which are in ascending order."""

    @abstractmethod
    def read(self, pages: Tensor) -> Planes:
        """Return the rows (n, width) of pages (n,) in every plane."""

    def in_memory(self, pages: int) -> int:
        """Return how many of `pages` stored pages take host memory; the rest is on a disk."""
        return pages


def check_tier(chosen: Choice | None) -> None:
    """Check that the tier of the settings can be built, before any text is read.

    Raises:
        SettingsError: the tier is "pinned", and there is no GPU.
        SavedMemoryError: no file can be created in the folder of the tier.
    """
    if chosen is not None:
        chosen.build(TIER, (Plane(1, torch.uint8),))


class SlabTier(Tier):
    """Pages in slabs of equal size.

    Args:
        planes: formats of the planes of a page.
        first_bytes: approximate bytes of the first slab.

    Attributes:
        per_slab: pages in a slab.
    """

    def __init__(self, planes: Sequence[Plane], first_bytes: int) -> None:
        super().__init__(planes)
        page_bytes = sum(plane.width * plane.dtype.itemsize for plane in planes)
        self.per_slab = max(1, first_bytes // page_bytes)
        self._slabs: tuple[Planes, ...] = ()  # replaced as a whole, never changed
        self._addresses: tuple[tuple[Planes, ...], tuple[Tensor, ...]] = (), ()
        self._written: torch.cuda.Event | None = None  # recorded after the last copy
        self._lock = threading.Lock()

    def write(self, pages: Tensor, planes: Planes) -> None:
        """See `Tier.write`.

        Copies from a GPU to page-locked memory are asynchronous; a later read waits for them.
        """
        numbers, begin, stream = pages.tolist(), 0, None
        if self.pinned and planes[0].is_cuda:
            stream = torch.cuda.current_stream(planes[0].device)
        with self._lock:  # a slab that is moved meanwhile would lose these rows
            if stream is not None and self._written is not None:  # perhaps on another stream
                stream.wait_event(self._written)
            while begin < len(numbers):
                slab, first = divmod(numbers[begin], self.per_slab)
                end = bisect_left(numbers, (slab + 1) * self.per_slab, begin)
                last = numbers[end - 1] - slab * self.per_slab + 1
                for target, source in zip(self._slabs[slab], planes, strict=True):
                    rows = source[begin:end]
                    if last - first == end - begin:
                        target[first:last].copy_(rows, non_blocking=self.pinned)
                    else:
                        local = pages[begin:end] - slab * self.per_slab
                        target[local] = rows.to(target.device)
                begin = end
            if stream is not None:
                self._written = stream.record_event()

    def read(self, pages: Tensor) -> Planes:
        """See `Tier.read`."""
        if self._written is not None:
            self._written.synchronize()
        slabs = self._slabs
        if len(slabs) == 1:
            return tuple(_gathered(plane, pages) for plane in slabs[0])
        if len(pages) <= _FEW:
            lie = [divmod(page, self.per_slab) for page in pages.tolist()]
            return tuple(
                torch.cat([slabs[slab][part][row : row + 1] for slab, row in lie])
                for part in range(len(self._planes))
            )
        slab_of = pages // self.per_slab
        result = tuple(plane.new_empty(len(pages), plane.shape[1]) for plane in slabs[0])
        for slab in slab_of.unique().tolist():
            at = (slab_of == slab).nonzero()[:, 0]
            local = pages[at] - slab * self.per_slab
            for into, plane in zip(result, slabs[slab], strict=True):
                into[at] = plane.index_select(0, local)
        return result

    def addresses(self, device: torch.device) -> tuple[Tensor, ...]:
        """Return the slab addresses of each plane, for kernels on a device's current stream."""
        if self._written is not None:
            torch.cuda.current_stream(device).wait_event(self._written)
        slabs, known = self._addresses
        if slabs is not self._slabs:
            slabs, parts = self._slabs, range(len(self._planes))
            lie = ([slab[part].data_ptr() for slab in slabs] for part in parts)
            known = tuple(torch.tensor(each, device=device) for each in lie)
            self._addresses = slabs, known
        return known

    def _slab(self, pages: int) -> Planes:
        """Allocate room for pages; the system gives it physical memory at the first write."""
        return tuple(
            torch.empty(pages, plane.width, dtype=plane.dtype, pin_memory=self.pinned)
            for plane in self._planes
        )


def _gathered(plane: Tensor, pages: Tensor) -> Tensor:
    """Return the rows of pages (n,) of a plane (N, W) in host memory."""
    return loops.gather(plane, pages) if loops.available() else plane.index_select(0, pages)


class HostTier(SlabTier):
    """Tier with one slab in host memory, which is moved to an eighth more room when it is full.

    Unused room takes physical memory only where the C library reuses memory that was freed before.
    """

    def __init__(self, planes: Sequence[Plane]) -> None:
        super().__init__(planes, _FIRST_BYTES)
        self._least = self.per_slab

    def make_room(self, pages: int) -> None:
        """See `Tier.make_room`."""
        with self._lock:
            if not self._slabs:
                self._move_to(max(pages, self.per_slab))
            elif pages > self.per_slab:
                more = max(self._least, self.per_slab // 8)
                self._move_to(max(pages, self.per_slab + more))

    def _move_to(self, room: int) -> None:
        roomy = self._slab(room)
        for slab in self._slabs:
            for old, new in zip(slab, roomy, strict=True):
                new[: len(old)] = old
        self._slabs, self.per_slab = (roomy,), room


class PinnedTier(SlabTier):
    """Tier with page-locked slabs, which are never moved because a GPU reads their addresses."""

    pinned = True

    def __init__(self, planes: Sequence[Plane]) -> None:
        if self.pinned and not torch.accelerator.is_available():
            raise SettingsError(
                "tier 'pinned' is page-locked memory, and there is no GPU here that reads it: "
                "'host' and 'disk' are accepted, or leave it out",
                "tier",
            )
        super().__init__(planes, _SLAB_BYTES)

    def make_room(self, pages: int) -> None:
        """See `Tier.make_room`."""
        with self._lock:
            while len(self._slabs) * self.per_slab < pages:
                self._slabs = (*self._slabs, self._slab(self.per_slab))
