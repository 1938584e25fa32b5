"""Which pages are in which slot: rules that hold under any traffic, whatever the policy."""

from __future__ import annotations

import random

import pytest
import torch

from inf_llm.memory.slot_table import HostSlotTable
from inf_llm.variants import EVICTION
from tests.memory.shelf import Shelf, policy, residency

every_policy = pytest.mark.parametrize("name", list(EVICTION))


@every_policy
@pytest.mark.parametrize("repeats", [False, True], ids=["apart", "repeats"])
@pytest.mark.parametrize("seed", range(12))
def test_any_traffic(name: str, repeats: bool, seed: int) -> None:
    """Every page wanted is in a slot, no two pages share one, whatever came before."""
    chance = random.Random(seed)
    slots, pages_in_all = chance.randint(1, 12), chance.choice([12, 20, 60])
    shelf = Shelf(name, slots)
    for _ in range(40):
        if chance.random() < 0.1:
            pages_in_all += chance.randint(1, 100)
        count = chance.randint(1, slots)
        pages = chance.choices(range(pages_in_all), k=count)
        places = shelf.admit(pages if repeats else list(dict.fromkeys(pages)), pages_in_all)
        shelf.residency.observed(torch.tensor(places), torch.rand(len(places)))
        if chance.random() < 0.2:
            gone = chance.sample(range(pages_in_all), 3)
            shelf.residency.forget(torch.tensor(gone))
            assert shelf.pages.keys() <= set(range(slots))
            shelf.forgotten.update(gone)
    shelf.check_counts()


@every_policy
def test_nothing_leaves_while_there_is_room(name: str) -> None:
    shelf = Shelf(name, 6)
    for pages in ([0, 1], [2], [0, 3], [4, 5], [0, 1, 2, 3, 4, 5]):
        shelf.admit(pages, 10)
    traffic = shelf.residency.traffic()
    assert (int(traffic.hits), int(traffic.misses), int(traffic.evictions)) == (7, 6, 0)


@every_policy
def test_as_many_as_there_are_slots(name: str) -> None:
    """Some there, some not, and every slot is needed."""
    shelf = Shelf(name, 4)
    shelf.admit([0, 1, 2, 3], 10)
    shelf.admit([7, 2, 9, 0], 10)
    shelf.admit([5, 6, 7, 8], 10)
    traffic = shelf.residency.traffic()
    assert (int(traffic.hits), int(traffic.misses), int(traffic.evictions)) == (3, 9, 5)


@every_policy
def test_forgotten_slots_are_filled_first(name: str) -> None:
    shelf = Shelf(name, 3)
    for page in (0, 1, 2):
        shelf.admit([page], 10)
    shelf.residency.forget(torch.tensor([1, 8]))
    shelf.admit([5], 10)
    shelf.admit([0, 2], 10)
    traffic = shelf.residency.traffic()
    assert (int(traffic.hits), int(traffic.evictions)) == (2, 0)


@every_policy
def test_what_is_used_now_does_not_leave_now(name: str) -> None:
    """The oldest page is wanted beside a new one: it must stay, whatever its priority."""
    shelf = Shelf(name, 2)
    shelf.admit([0], 10)
    shelf.admit([1], 10)
    shelf.residency.observed(torch.tensor([1]), torch.tensor([9.0]))
    shelf.admit([2, 0], 10)
    traffic = shelf.residency.traffic()
    assert (int(traffic.hits), int(traffic.misses)) == (1, 3)


@every_policy
@pytest.mark.parametrize("repeats", [False, True], ids=["apart", "repeats"])
@pytest.mark.parametrize("seed", range(12))
def test_the_host_table_says_what_tensors_say(name: str, repeats: bool, seed: int) -> None:
    """The same slots for the same pages, whatever came before, and the same counts."""
    chance = random.Random(seed)
    slots, pages_in_all = chance.randint(1, 12), chance.choice([12, 20, 60])
    decay = chance.choice([0.0, 0.5, 1.0])
    tensors, ledger = residency(name, slots, decay), HostSlotTable(slots, policy(name, decay))
    for _ in range(60):
        chosen = chance.choices(range(pages_in_all), k=chance.randint(1, slots))
        pages = torch.tensor(chosen if repeats else list(dict.fromkeys(chosen)))
        places, _ = tensors.admit(pages, pages_in_all)
        assert torch.equal(ledger.admit(pages), places)
        mass = torch.rand(len(set(places.tolist())), dtype=torch.float64)
        for each in (tensors, ledger):
            each.observed(places.unique(), mass)
        if chance.random() < 0.2:
            gone = torch.tensor(chance.sample(range(pages_in_all), 3))
            for each in (tensors, ledger):
                each.forget(gone)
        for count in ("hits", "misses", "evictions"):
            assert int(getattr(tensors.traffic(), count)) == getattr(ledger.traffic(), count)
