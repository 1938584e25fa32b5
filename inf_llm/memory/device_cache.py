"""Room on the device for a fixed number of pages, filled from a tier."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from inf_llm.memory.codec import Plane, Planes
from inf_llm.memory.load import can_load, load_pages
from inf_llm.memory.tiers import Tier


class DeviceCache:
    """Slots for pages.

    Args:
        tier: where pages come from.
        planes: what a page consists of.
        pages: how many fit.
        device: where they are.
        overlap: copy on a stream of its own, so that computing need not wait.
    """

    def __init__(
        self,
        tier: Tier,
        planes: Sequence[Plane],
        pages: int,
        device: torch.device,
        overlap: bool,
    ) -> None:
        self._tier = tier
        self._device = device
        self._planes: Planes = tuple(
            torch.empty(pages, plane.width, dtype=plane.dtype, device=device) for plane in planes
        )
        self._stream: torch.cuda.Stream | None = None
        if overlap and device.type == "cuda":
            self._stream = torch.cuda.Stream(device)

    def load(self, pages: Tensor, slots: Tensor, missing: Tensor) -> None:
        """Copy those pages (n,) of the tier that are missing to slots (n,) here."""
        if self._stream is not None:  # what is read of the slots must have been read
            self._stream.wait_stream(torch.cuda.current_stream(self._device))
            for used in (pages, slots, missing):
                used.record_stream(self._stream)
        tier = self._tier
        if can_load(self._device, tier.pinned):
            places = tier.addresses(self._device)
            with torch.cuda.stream(self._stream):
                for slabs, target in zip(places, self._planes, strict=True):
                    load_pages(slabs, tier.per_slab, target, pages, slots, missing)
            return
        pages, slots = pages[missing], slots[missing]
        if not len(pages):
            return
        found = tier.read(pages.to("cpu"))
        with torch.cuda.stream(self._stream):
            for target, rows in zip(self._planes, found, strict=True):
                target[slots] = rows.to(self._device, non_blocking=True)

    def read(self, slots: Tensor) -> Planes:
        """Rows of slots (n,) in every plane, once copies under way have arrived."""
        if self._stream is not None:
            torch.cuda.current_stream(self._device).wait_stream(self._stream)
        return tuple(plane.index_select(0, slots) for plane in self._planes)

    @property
    def nbytes(self) -> int:
        """Bytes of the room."""
        return sum(plane.nbytes for plane in self._planes)
