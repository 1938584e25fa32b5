"""Which replica a question goes to."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import partial

from benchmark.simulation.scenario import Scenario
from inf_llm.cluster.ranking import idle_first, ranked

Route = Callable[[int, Sequence[int], bool], int]
"""The number of a replica, given a document, how many requests each replica has, and whether the
document's memory is on the disk."""


def order(document: int, replicas: int) -> list[int]:
    """Replicas in the order in which `inf-llm serve --engine ray` tries them; the first owns it."""
    numbers = {f"replica-{number}": number for number in range(replicas)}
    return [numbers[name] for name in ranked(f"doc-{document}", list(numbers))]


def at_random(scenario: Scenario, replicas: int) -> Route:
    """Any replica."""
    draw = random.Random(f"route {scenario.seed}")
    return lambda document, present, saved: draw.randrange(replicas)


def by_affinity(scenario: Scenario, replicas: int) -> Route:
    """The owner of the document."""
    owners = [order(document, replicas)[0] for document in range(scenario.documents)]
    return lambda document, present, saved: owners[document]


def with_spill(scenario: Scenario, replicas: int, when_saved: bool) -> Route:
    """The owner, or the replica with the fewest requests while the owner has many.

    With `when_saved` only where that replica can open the document, and need not read it too.
    """
    own = by_affinity(scenario, replicas)

    def route(document: int, present: Sequence[int], saved: bool) -> int:
        first = own(document, present, saved)
        if present[first] <= scenario.spill or (when_saved and not saved):
            return first
        return min(range(replicas), key=present.__getitem__)

    return route


def to_the_next(scenario: Scenario, replicas: int) -> Route:
    """What `inf-llm serve --engine ray` does, once others can open the document."""
    orders = [order(document, replicas) for document in range(scenario.documents)]

    def route(document: int, present: Sequence[int], saved: bool) -> int:
        if not saved:
            return orders[document][0]
        return idle_first(orders[document], present.__getitem__, scenario.spill)[0]

    return route


POLICIES: dict[str, Callable[[Scenario, int], Route]] = {
    "random": at_random,
    "affinity": by_affinity,
    "spill": partial(with_spill, when_saved=False),
    "spill-saved": partial(with_spill, when_saved=True),
    "next-saved": to_the_next,
}
