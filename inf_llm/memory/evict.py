"""Which block leaves the device first. Pure bookkeeping: no key or value is seen here.

Every operation has a fixed shape and stays on the device, so that a decode step on CUDA never waits
for the host. Eviction changes what has to be copied, never a result.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from inf_llm.registry import Registry

POLICIES = Registry(
    "eviction policy",
    {
        "lru": "inf_llm.memory.evict:LeastRecentlyUsed",
        "fifo": "inf_llm.memory.evict:FirstInFirstOut",
        "lru-s": "inf_llm.memory.evict:LeastScored",
    },
)


class Policy:
    """Gives every slot a priority; the slot with the lowest one is emptied first."""

    needs_mass = False

    def begin(self, priority: Tensor) -> None:
        """A new execution block begins."""

    def used(self, priority: Tensor, slots: Tensor, loaded: Tensor, step: int) -> None:
        """The pages in `slots` (n,) are used in `step`; `loaded` (n,) of them just arrived."""
        raise NotImplementedError

    def observed(self, priority: Tensor, slots: Tensor, mass: Tensor) -> None:
        """The pages in `slots` received this much attention mass (n,)."""


class LeastRecentlyUsed(Policy):
    """The page that was recalled longest ago leaves."""

    def __init__(self, decay: float) -> None:
        del decay

    def used(self, priority: Tensor, slots: Tensor, loaded: Tensor, step: int) -> None:
        """See `Policy.used`."""
        priority[slots] = float(step)


class FirstInFirstOut(Policy):
    """The page that was loaded first leaves."""

    def __init__(self, decay: float) -> None:
        del decay

    def used(self, priority: Tensor, slots: Tensor, loaded: Tensor, step: int) -> None:
        """See `Policy.used`."""
        priority[slots] = torch.where(loaded, float(step), priority[slots])


class LeastScored(Policy):
    """The page that attention cared for least leaves; old care fades by `decay` every step."""

    needs_mass = True

    def __init__(self, decay: float) -> None:
        self._decay = decay

    def begin(self, priority: Tensor) -> None:
        """See `Policy.begin`."""
        priority *= self._decay

    def used(self, priority: Tensor, slots: Tensor, loaded: Tensor, step: int) -> None:
        """See `Policy.used`."""
        priority[slots] = torch.where(loaded, 0.0, priority[slots])

    def observed(self, priority: Tensor, slots: Tensor, mass: Tensor) -> None:
        """See `Policy.observed`."""
        priority[slots] += mass.to(priority.dtype)


@dataclass
class Traffic:
    """Running counts of what recalling cost; tensors, read only when somebody asks."""

    hits: Tensor
    misses: Tensor
    evictions: Tensor


class Residency:
    """Which pages are on the device, in which slot.

    Args:
        slots: how many pages fit.
        policy: who leaves first.
        device: where the bookkeeping lives.
    """

    def __init__(self, slots: int, policy: Policy, device: torch.device) -> None:
        self.policy = policy
        self._slots = slots
        self._page_in = torch.full((slots,), -1, device=device)
        self._slot_of = torch.full((64,), -1, device=device)  # the last entry is a bin
        self._priority = torch.zeros(slots, device=device, dtype=torch.float64)
        self._step = 0
        self.traffic = Traffic(*(torch.zeros((), dtype=torch.int64, device=device) for _ in "hme"))

    def admit(self, pages: Tensor, pages_in_all: int) -> tuple[Tensor, Tensor]:
        """Give every wanted page a slot.

        Args:
            pages: wanted pages (n,), at most as many as there are slots.
            pages_in_all: number of pages that exist.

        Returns:
            Slots (n,), and which of the pages (n,) are not there yet and must be copied in.
        """
        self._grow(pages_in_all)
        self._step += 1
        self.policy.begin(self._priority)
        there = self._slot_of[pages]
        missing = there < 0
        victims = self._victims(there, missing, len(pages))
        slots = torch.where(missing, victims, there)
        self._replace(pages, slots, missing)
        self.policy.used(self._priority, slots, missing, self._step)
        return slots, missing

    def _victims(self, there: Tensor, missing: Tensor, count: int) -> Tensor:
        """A slot for every missing page (n,): empty ones, then those of lowest priority."""
        rank = self._priority.masked_fill(self._page_in < 0, -torch.inf)
        bin_ = rank.new_zeros(1)
        rank = torch.cat((rank, bin_))
        rank[torch.where(missing, self._slots, there)] = torch.inf
        lowest = rank[:-1].topk(count, largest=False, sorted=True).indices
        return lowest[(missing.cumsum(0) - 1).clamp_(min=0)]

    def _replace(self, pages: Tensor, slots: Tensor, missing: Tensor) -> None:
        leaving = self._page_in[slots]
        evicted = missing & (leaving >= 0)
        still = self._slot_of[leaving] == slots
        last = self._slot_of.shape[0] - 1
        self._slot_of[torch.where(evicted & still, leaving, last)] = -1
        self._slot_of[pages] = slots
        self._page_in[slots] = pages
        self.traffic.hits += (~missing).sum()
        self.traffic.misses += missing.sum()
        self.traffic.evictions += evicted.sum()

    def observed(self, slots: Tensor, mass: Tensor) -> None:
        """Tell the policy what attention the pages in these slots received."""
        self.policy.observed(self._priority, slots, mass)

    def forget(self, pages: Tensor) -> None:
        """These pages no longer exist; their slots become free."""
        pages = pages[pages < self._slot_of.shape[0] - 1].to(self._slot_of.device)
        slots = self._slot_of[pages]
        self._page_in[slots[slots >= 0]] = -1
        self._slot_of[pages] = -1

    def _grow(self, pages_in_all: int) -> None:
        if pages_in_all < self._slot_of.shape[0]:
            return
        fresh = torch.full((2 * pages_in_all + 1,), -1, device=self._slot_of.device)
        fresh[: self._slot_of.shape[0]] = self._slot_of
        self._slot_of = fresh
