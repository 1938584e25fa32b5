"""The assignment of pages to the slots of the device cache, without keys and values.

A page here is a unit of `DeviceCache`: one page of a block, or a whole block. On a GPU, the
operations of a decoding step have fixed shapes and run on the GPU, so that the step never waits for
the host. Eviction decides only which pages are copied; it does not change a result.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from inf_llm.memory.evict import Policy
from inf_llm.state import State

_NOTES = 64  # most steps whose counting is deferred
_EMPTY = -math.inf  # the priority of a slot without a page
_COUNTS = "hits", "misses", "evictions"  # of `Traffic`


@dataclass
class Traffic:
    """Counts of page accesses; tensors on a device, which are read only on demand."""

    hits: int | Tensor = 0
    misses: int | Tensor = 0
    evictions: int | Tensor = 0


def clock_dtype(device: torch.device) -> torch.dtype:
    """Return the dtype of step counts and priorities: float64, or float32 on Apple's mps.

    mps has no float64. With float32, all pages of one step have the same age after 16 million
    steps. This changes which pages are copied, but no result.
    """
    return torch.float32 if device.type == "mps" else torch.float64


class SlotTable:
    """Assignment of pages to slots, in tensors on the device.

    Args:
        slots: number of slots; each has room for one page.
        policy: eviction policy.
        device: device of the table.
        so_far: counts of a smaller table that this one replaces.
    """

    def __init__(
        self, slots: int, policy: Policy, device: torch.device, so_far: Traffic | None = None
    ) -> None:
        self.policy = policy
        self._slots = slots
        self._page_in = torch.full((slots,), -1, device=device)
        # The slot of each page, valid only while `_page_in` has the page in that slot.
        self._slot_of = torch.zeros(64, dtype=torch.int64, device=device)
        clock = clock_dtype(device)
        # The extra entry is the index that `_victims` uses for missing pages; it is never evicted.
        self._priority = torch.full((slots + 1,), _EMPTY, device=device, dtype=clock)
        self._priority[slots] = math.inf
        # Within a step, later pages count as younger, so that evictions are deterministic.
        self._order = torch.arange(slots, device=device, dtype=clock) / slots
        self._step = 0
        self._so_far = so_far or Traffic()
        self._wanted = self._forgotten = 0
        self._misses = torch.zeros((), dtype=torch.int64, device=device)

    def admit(self, pages: Tensor, pages_in_all: int) -> tuple[Tensor, Tensor]:
        """Assign a slot to every requested page.

        Args:
            pages: requested pages (n,), at most as many as there are slots.
            pages_in_all: number of pages that exist.

        Returns:
            Slots (n,), and a mask (n,) of the pages that must be copied into their slots.
        """
        self._make_room(pages_in_all)
        self._step += 1
        if self.policy.fades != 1:
            held, faded = self._priority.isfinite(), self._priority * self.policy.fades
            self._priority = torch.where(held, faded, self._priority)
        there = self._slot_of[pages]
        missing = self._page_in[there] != pages
        count = missing.cumsum(0)
        slots = torch.where(missing, self._victims(there, missing, count), there)
        self._slot_of[pages] = slots
        self._page_in[slots] = pages
        self._wanted += len(pages)
        self._misses += count[-1]
        now = self._order[: len(pages)] + self._step
        again = self.policy.used(self._priority[slots], now)
        self._priority[slots] = torch.where(missing, self.policy.loaded(now), again)
        return slots, missing

    def _victims(self, there: Tensor, missing: Tensor, count: Tensor) -> Tensor:
        """Return a slot for every missing page (n,): empty slots, then those of least priority.

        Entries of `there` for missing pages are overwritten.
        """
        rank = self._priority.index_fill(0, there.masked_fill_(missing, self._slots), math.inf)
        return rank.sort(stable=True).indices[count - 1]

    def observed(self, slots: Tensor, mass: Tensor) -> None:
        """Add the attention mass (n,) of the pages in these slots (n,) to their priorities."""
        self._priority[slots] += mass.to(self._priority.dtype)

    def forget(self, pages: Tensor) -> None:
        """Free the slots of these pages, which no longer exist."""
        pages = pages[pages < self._slot_of.shape[0]].to(self._slot_of.device)
        slots = self._slot_of[pages]
        slots = slots[self._page_in[slots] == pages]
        self._page_in[slots] = -1
        self._priority[slots] = _EMPTY
        self._forgotten += len(slots)

    def dump(self) -> State:
        """Return pages and priorities of all slots as CPU tensors, and the counts."""
        page_in = self._page_in.cpu()
        current = self._slot_of[self._page_in.clamp(min=0)].cpu() == torch.arange(len(page_in))
        return _dumped(page_in, self._priority[:-1].cpu(), current, self._step, self.traffic())

    def restore(self, state: State) -> tuple[Tensor, Tensor]:
        """Set a state from `dump`; return the pages to load (n,) and their slots (n,)."""
        device, tensors = self._page_in.device, state.tensors
        self._page_in = tensors["page_in"].to(device)
        self._priority[:-1] = tensors["priority"].to(self._priority)
        self._step = state.numbers["step"]
        slots = (self._page_in >= 0).nonzero()[:, 0]
        self._make_room(int(self._page_in.max()) + 1)
        current = slots[tensors["current"].to(device)[slots]]
        self._slot_of[self._page_in[current]] = current
        self._so_far = Traffic(**{name: state.numbers[name] for name in _COUNTS})
        self._so_far.evictions += len(slots)  # `traffic` subtracts the pages in slots
        return self._page_in[slots], slots

    def traffic(self) -> Traffic:
        """Return the counts of all requested pages so far."""
        before, held = self._so_far, (self._page_in >= 0).sum()
        return Traffic(
            hits=before.hits + self._wanted - self._misses,
            misses=before.misses + self._misses,
            evictions=before.evictions + self._misses - self._forgotten - held,
        )

    def _make_room(self, pages_in_all: int) -> None:
        """Enlarge `_slot_of` for `pages_in_all` pages."""
        if pages_in_all <= self._slot_of.shape[0]:
            return
        fresh = self._slot_of.new_zeros(2 * pages_in_all)
        fresh[: self._slot_of.shape[0]] = self._slot_of
        self._slot_of = fresh


def _dumped(
    page_in: Tensor, priority: Tensor, current: Tensor, step: int, traffic: Traffic
) -> State:
    counts = {name: int(getattr(traffic, name)) for name in _COUNTS}
    tensors = {"page_in": page_in, "priority": priority, "current": current}
    return State(tensors, {"step": step, **counts}, {})


class HostSlotTable:
    """`SlotTable` in Python numbers, which on a CPU are faster than many small tensor operations.

    Pages are read directly from their tier and not copied to slots. The table only simulates the
    slots, to count hits, misses and evictions.
    """

    def __init__(self, slots: int, policy: Policy, so_far: Traffic | None = None) -> None:
        self.policy = policy
        self._page_in: list[int | None] = [None] * slots
        self._slot_of: dict[int, int] = {}
        self._priority = [_EMPTY] * slots
        self._step = 0
        self._traffic = so_far or Traffic()
        self._later: list[Tensor] = []

    def traffic(self) -> Traffic:
        """Return the counts of all requested pages so far."""
        self._catch_up()
        return self._traffic

    def dump(self) -> State:
        """See `SlotTable.dump`."""
        self._catch_up()
        page_in = torch.tensor([-1 if page is None else page for page in self._page_in])
        current = [
            page is not None and self._slot_of.get(page) == slot
            for slot, page in enumerate(self._page_in)
        ]
        priority = torch.tensor(self._priority, dtype=torch.float64)
        return _dumped(page_in, priority, torch.tensor(current), self._step, self._traffic)

    def restore(self, state: State) -> tuple[Tensor, Tensor]:
        """See `SlotTable.restore`; no page must be loaded."""
        page_in, priority = state.tensors["page_in"].tolist(), state.tensors["priority"].tolist()
        self._page_in = [None if page < 0 else page for page in page_in]
        self._priority, self._step = priority, state.numbers["step"]
        current = state.tensors["current"].nonzero()[:, 0].tolist()
        self._slot_of = {page_in[slot]: slot for slot in current if page_in[slot] >= 0}
        self._traffic = Traffic(**{name: state.numbers[name] for name in _COUNTS})
        return torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64)

    def note(self, pages: Tensor) -> None:
        """Note requested pages (n,), which are counted later, many steps together.

        Counting in each decoding step takes four times as long, because the large matrix products
        between two calls evict this code from the processor's cache.
        """
        self._later.append(pages)
        if len(self._later) > _NOTES:
            self._catch_up()

    def _catch_up(self) -> None:
        noted, self._later = self._later, []
        for pages in noted:
            self.admit(pages)

    def admit(self, pages: Tensor) -> Tensor:
        """Assign a slot to every requested page (n,); return the slots (n,)."""
        if self._later:
            self._catch_up()
        self._step += 1
        if self.policy.fades != 1:
            self._priority = [
                _EMPTY if page is None else value * self.policy.fades
                for page, value in zip(self._page_in, self._priority, strict=True)
            ]
        wanted = pages.tolist()
        there = [self._slot_of.get(page) for page in wanted]
        victims = iter(self._victims(there))
        slots, priority = [], self._priority
        for place, (page, known) in enumerate(zip(wanted, there, strict=True)):
            now = self._step + place / len(priority)
            slot = next(victims) if known is None else known
            if known is None:
                self._replace(slot, page)
                priority[slot] = self.policy.loaded(now)
            else:
                priority[slot] = self.policy.used(priority[slot], now)
            slots.append(slot)
        self._traffic.hits += len(there) - there.count(None)
        self._traffic.misses += there.count(None)
        return torch.tensor(slots)

    def _victims(self, there: list[int | None]) -> list[int]:
        """Return a slot for every missing page: empty slots, then those of least priority."""
        taken = set(there)
        free = [slot for slot in range(len(self._page_in)) if slot not in taken]
        return heapq.nsmallest(there.count(None), free, key=self._priority.__getitem__)

    def _replace(self, slot: int, page: int) -> None:
        leaving = self._page_in[slot]
        if leaving is not None:
            self._traffic.evictions += 1
            if self._slot_of.get(leaving) == slot:  # otherwise another slot has the page too
                del self._slot_of[leaving]
        self._slot_of[page], self._page_in[slot] = slot, page

    def observed(self, slots: Tensor, mass: Tensor) -> None:
        """Add the attention mass (n,) of the pages in these slots (n,) to their priorities."""
        before = list(self._priority)
        for slot, received in zip(slots.tolist(), mass.tolist(), strict=True):
            self._priority[slot] = before[slot] + received

    def forget(self, pages: Tensor) -> None:
        """Free the slots of these pages, which no longer exist."""
        self._catch_up()
        for page in pages.tolist():
            slot = self._slot_of.pop(page, None)
            if slot is not None:
                self._page_in[slot], self._priority[slot] = None, _EMPTY
