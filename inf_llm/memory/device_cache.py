"""A cache on the device with room for a fixed number of pages, filled from a tier.

A unit is a run of consecutive pages of the tier that are copied together; it fills one slot. The
module `slot_table` assigns units to slots and decides which unit is evicted.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from inf_llm.memory.codec import Plane, Planes
from inf_llm.memory.load import can_load, load_pages
from inf_llm.memory.tiers import SlabTier, Tier


class DeviceCache:
    """Slots for units on the device.

    Args:
        tier: tier from which pages are copied.
        planes: formats of the planes of a page.
        slots: number of slots.
        together: pages of a unit.
        device: device of the slots.
        overlap: on CUDA, copy on a separate stream, so that computation runs at the same time.
    """

    def __init__(
        self,
        tier: Tier,
        planes: Sequence[Plane],
        slots: int,
        together: int,
        device: torch.device,
        overlap: bool,
    ) -> None:
        self._tier = tier
        self._together = together
        self._device = device
        self._planes: Planes = tuple(
            torch.empty(slots * together, plane.width, dtype=plane.dtype, device=device)
            for plane in planes
        )
        self._stream: torch.cuda.Stream | None = None
        if overlap and device.type == "cuda":
            self._stream = torch.cuda.Stream(device)

    def load(self, units: Tensor, slots: Tensor, missing: Tensor) -> None:
        """Copy the `missing` ones of units (n,) from the tier to slots (n,) of the cache."""
        if self._stream is not None:  # reads of the slots that are queued must finish first
            self._stream.wait_stream(torch.cuda.current_stream(self._device))
            for used in (units, slots, missing):
                used.record_stream(self._stream)
        tier, together = self._tier, self._together
        if isinstance(tier, SlabTier) and can_load(self._device, tier.pinned):
            with torch.cuda.stream(self._stream):
                places = tier.addresses(self._device)
                for slabs, target in zip(places, self._planes, strict=True):
                    load_pages(slabs, tier.per_slab, target, units, slots, missing, together)
            return
        units, slots = units[missing], slots[missing]
        if not len(units):
            return
        pages = units.to("cpu")[:, None] * together + torch.arange(together)
        planes = tier.read(pages.flatten())
        with torch.cuda.stream(self._stream):
            for target, rows in zip(self._planes, planes, strict=True):
                of_slots = target.view(-1, together * target.shape[1])
                of_slots[slots] = rows.reshape(len(slots), -1).to(self._device, non_blocking=True)

    def read(self, pages: Tensor) -> Planes:
        """Return the rows of pages (n,), numbered across all slots, after pending copies."""
        if self._stream is not None:
            torch.cuda.current_stream(self._device).wait_stream(self._stream)
        return tuple(plane.index_select(0, pages) for plane in self._planes)

    @property
    def nbytes(self) -> int:
        """Bytes of the slots."""
        return sum(plane.nbytes for plane in self._planes)
