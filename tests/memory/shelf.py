"""Slots of the device with pages in them, for tests of policies and of the slot table."""

from __future__ import annotations

import torch

from inf_llm.choice import Choice
from inf_llm.memory.evict import Policy
from inf_llm.memory.slot_table import SlotTable
from inf_llm.variants import EVICTION


def policy(name: str, decay: float = 0.5) -> Policy:
    made: Policy = Choice(name, {"decay": decay} if name == "lru-s" else {}).build(EVICTION)
    return made


def residency(name: str, slots: int, decay: float = 0.5) -> SlotTable:
    return SlotTable(slots, policy(name, decay), torch.device("cpu"))


class Shelf:
    """Slots with pages in them, as the copies leave them."""

    def __init__(self, name: str, slots: int) -> None:
        self.residency = residency(name, slots)
        self.slots = slots
        self.pages: dict[int, int] = {}
        self.forgotten: set[int] = set()
        self.wanted = 0

    def admit(self, pages: list[int], pages_in_all: int) -> list[int]:
        slots, missing = self.residency.admit(torch.tensor(pages), pages_in_all)
        places = slots.tolist()
        for page, place, absent in zip(pages, places, missing.tolist(), strict=True):
            assert absent or page not in self.forgotten, "a page that is no more was found"
            if absent:
                self.pages[place] = page
        self.forgotten.difference_update(pages)
        self.wanted += len(pages)
        assert all(0 <= place < self.slots for place in places)
        assert [self.pages[place] for place in places] == pages, "a page is not where it should be"
        return places

    def check_counts(self) -> None:
        traffic = self.residency.traffic()
        assert int(traffic.hits) + int(traffic.misses) == self.wanted
        assert int(traffic.evictions) <= int(traffic.misses)
