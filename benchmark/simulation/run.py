"""The event loop of the simulation."""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass

from benchmark.simulation.costs import Costs
from benchmark.simulation.replica import Replica
from benchmark.simulation.routing import POLICIES
from benchmark.simulation.scenario import Request, Scenario, traffic


@dataclass(frozen=True)
class Ran:
    """The result of a simulation.

    Attributes:
        requests: all requests in the order of arrival.
        counted: the requests after the warm-up.
        seconds: time from the first counted arrival to the last arrival.
        busy: seconds in which each replica worked during that time.
        offered: seconds of work that arrived at each replica during that time.
        read: number of documents read from their texts, over the whole simulation.
    """

    requests: list[Request]
    counted: list[Request]
    seconds: float
    busy: list[float]
    offered: list[float]
    read: int


class _Timeline:
    """The replicas, and a heap of the times of their next events.

    Outdated events stay in the heap, and are skipped when they are popped.

    Args:
        replicas: the replicas.
    """

    def __init__(self, replicas: list[Replica]) -> None:
        self.replicas = replicas
        self._due = [math.inf] * len(replicas)
        self._heap: list[tuple[float, int]] = []

    def run(self, until: float) -> None:
        """Process all events up to the time `until`."""
        while self._heap and self._heap[0][0] <= until:
            now, number = heapq.heappop(self._heap)
            if now == self._due[number]:
                replica = self.replicas[number]
                replica.advance(now)
                replica.end()
                self.plan(number)

    def plan(self, number: int) -> None:
        """Schedule the next event of a replica whose state changed."""
        self._due[number] = due = self.replicas[number].next()
        if due < math.inf:
            heapq.heappush(self._heap, (due, number))

    def figures(self, now: float) -> list[tuple[float, float]]:
        """Return for each replica the busy seconds and the arrived work up to `now`."""
        for number, replica in enumerate(self.replicas):
            replica.advance(now)
            self.plan(number)
        return [(replica.busy, replica.offered) for replica in self.replicas]


def simulate(costs: Costs, scenario: Scenario, replicas: int, policy: str) -> Ran:
    """Simulate all questions of a scenario until the last one is answered."""
    requests = traffic(scenario)
    disk = set[int]() if scenario.cold else set(range(scenario.documents))
    route = POLICIES[policy](scenario, replicas)
    line = _Timeline([Replica(costs, scenario, disk) for _ in range(replicas)])
    begin = int(scenario.warm_up * len(requests))
    before = [(0.0, 0.0)] * replicas
    for place, request in enumerate(requests):
        line.run(request.arrived)
        if place == begin:
            before = line.figures(request.arrived)
        present = [each.present for each in line.replicas]
        _arrive(line, request, route(request.document, present, request.document in disk))
    after = line.figures(requests[-1].arrived)
    line.run(math.inf)
    gained = [(b[0] - a[0], b[1] - a[1]) for a, b in zip(before, after, strict=True)]
    return Ran(
        requests,
        requests[begin:],
        requests[-1].arrived - (requests[begin].arrived if begin else 0.0),
        [busy for busy, _ in gained],
        [offered for _, offered in gained],
        sum(replica.read for replica in line.replicas),
    )


def _arrive(line: _Timeline, request: Request, number: int) -> None:
    request.replica = number
    replica = line.replicas[number]
    replica.advance(request.arrived)
    replica.arrive(request)
    line.plan(number)
