"""Policies that choose the replica of a question."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import partial

from benchmark.simulation.scenario import Scenario
from inf_llm.cluster.ranking import idle_first, ranked

Route = Callable[[int, Sequence[int], bool], int]
"""A function that returns the number of the replica for a question.

Its arguments are the document, the number of requests at each replica, and whether the document's
memory is on the disk.
"""


def order(document: int, replicas: int) -> list[int]:
    """Return the replicas in the order that `inf-llm serve --engine ray` uses for a document.

    The first replica is the owner of the document.
    """
    numbers = {f"replica-{number}": number for number in range(replicas)}
    return [numbers[name] for name in ranked(f"doc-{document}", list(numbers))]


def at_random(scenario: Scenario, replicas: int) -> Route:
    """Choose a random replica."""
    draw = random.Random(f"route {scenario.seed}")
    return lambda document, present, saved: draw.randrange(replicas)


def by_affinity(scenario: Scenario, replicas: int) -> Route:
    """Choose the owner of the document."""
    owners = [order(document, replicas)[0] for document in range(scenario.documents)]
    return lambda document, present, saved: owners[document]


def with_spill(scenario: Scenario, replicas: int, when_saved: bool) -> Route:
    """Choose the owner, or the replica with the fewest requests while the owner has many.

    With `when_saved`, leave the owner only if the document is on the disk, so that the other
    replica can open the document and need not read it.
    """
    to_owner = by_affinity(scenario, replicas)

    def route(document: int, present: Sequence[int], saved: bool) -> int:
        first = to_owner(document, present, saved)
        if present[first] <= scenario.spill or (when_saved and not saved):
            return first
        return min(range(replicas), key=present.__getitem__)

    return route


def to_the_next(scenario: Scenario, replicas: int) -> Route:
    """Choose as `inf-llm serve --engine ray` does: another replica only for a saved document."""
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
