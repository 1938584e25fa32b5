"""Which pages are where: rules that hold under any traffic, and the order each policy promises."""

from __future__ import annotations

import random
from collections.abc import Iterable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from inf_llm.choice import Choice
from inf_llm.memory.evict import Policy
from inf_llm.memory.slot_table import HostSlotTable, SlotTable
from inf_llm.variants import EVICTION
from tests.attention.draws import examples

every_policy = pytest.mark.parametrize("name", list(EVICTION))


def policy(name: str, decay: float = 0.5) -> Policy:
    made: Policy = Choice(name, {"decay": decay} if name == "lru-s" else {}).build(EVICTION)
    return made


def residency(name: str, slots: int, decay: float = 0.5) -> SlotTable:
    return SlotTable(slots, policy(name, decay), torch.device("cpu"))


class Shelf:
    """Slots with pages in them, as somebody would see them who does the copies."""

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


def misses(name: str, traffic: Iterable[int], slots: int, decay: float = 0.5) -> list[bool]:
    """One page a step: which of them had to be loaded."""
    shelf = residency(name, slots, decay)
    return [bool(shelf.admit(torch.tensor([page]), 50)[1]) for page in traffic]


@examples(60)
@given(st.lists(st.integers(0, 5), min_size=30, max_size=50), st.integers(1, 5))
def test_least_recently_used_leaves(traffic: list[int], slots: int) -> None:
    here: list[int] = []
    want = []
    for page in traffic:
        want.append(page not in here)
        here = [other for other in here if other != page][-slots + 1 :] if slots > 1 else []
        here.append(page)
    assert misses("lru", traffic, slots) == want


@examples(60)
@given(st.lists(st.integers(0, 5), min_size=30, max_size=50), st.integers(1, 5))
def test_first_in_leaves_first(traffic: list[int], slots: int) -> None:
    here: list[int] = []
    want = []
    for page in traffic:
        want.append(page not in here)
        if page not in here:
            here = [*here, page][-slots:]
    assert misses("fifo", traffic, slots) == want


@examples(60)
@given(
    st.lists(st.tuples(st.integers(0, 5), st.floats(0.01, 1.0)), min_size=30, max_size=50),
    st.integers(1, 5),
    st.sampled_from([0.1, 0.5, 1.0]),
)
def test_least_scored_leaves(traffic: list[tuple[int, float]], slots: int, decay: float) -> None:
    shelf = residency("lru-s", slots, decay)
    scores: dict[int, float] = {}
    for page, mass in traffic:
        scores = {other: score * decay for other, score in scores.items()}
        place, missing = shelf.admit(torch.tensor([page]), 50)
        ordered = sorted(scores.values())
        assert bool(missing) == (page not in scores)
        if page not in scores:
            if len(scores) == slots:
                if slots > 1 and ordered[1] - ordered[0] < 1e-9:
                    return  # a tie: either may leave
                del scores[min(scores, key=scores.__getitem__)]
            scores[page] = 0.0
        scores[page] += mass
        shelf.observed(place, torch.tensor([mass], dtype=torch.float64))


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
def test_a_ledger_says_what_tensors_say(name: str, repeats: bool, seed: int) -> None:
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
