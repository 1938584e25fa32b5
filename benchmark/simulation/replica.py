"""One simulated server (replica): documents in its memory, reading, and decoding of answers.

A replica schedules work as `inf-llm serve` does. All texts that are being read share the reading
time equally, and each decoding step gives one token to every answer. `reading_share` divides the
time between reading and decoding. Questions about a document wait while the document is read or
opened.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from typing import TypeAlias

from benchmark.simulation.costs import Costs
from benchmark.simulation.scenario import Request, Scenario
from benchmark.simulation.sharing import Shared

_Reading: TypeAlias = "int | Request"
"""The number of a document to read or open, or a question to read."""


class Memory:
    """The documents in a replica's memory, evicted in least-recently-used order.

    Args:
        places: maximum number of documents.
    """

    def __init__(self, places: int) -> None:
        self._places = places
        self._held: OrderedDict[int, None] = OrderedDict()

    def use(self, document: int) -> bool:
        """Make a document the most recently used; return whether it was in memory before."""
        found = document in self._held
        self._held[document] = None
        self._held.move_to_end(document)
        if len(self._held) > self._places:
            self._held.popitem(last=False)
        return found


class Replica:
    """A replica whose time the caller advances.

    Args:
        costs: costs of its work.
        scenario: memory budget, scheduling limits, and lengths of questions and answers.
        disk: documents with a memory on the disk; all replicas share this set.

    Attributes:
        present: number of requests that are not completely answered.
        busy: seconds in which the replica worked.
        offered: seconds of work that arrived, with the cost of an answer's tokens taken for a full
            batch of `active` answers.
        read: number of documents that the replica read.
    """

    def __init__(self, costs: Costs, scenario: Scenario, disk: set[int]) -> None:
        self.present, self.busy, self.offered, self.read = 0, 0.0, 0.0, 0
        self._costs, self._scenario, self._disk = costs, scenario, disk
        self._memory = Memory(int(scenario.budget // costs.bytes))
        self._reading: Shared[_Reading] = Shared()
        self._answering: Shared[Request] = Shared()
        self._queue: deque[Request] = deque()
        self._waiting: dict[int, list[Request]] = {}
        self._now = 0.0

    def arrive(self, request: Request) -> None:
        """Add a question that arrives at the current time."""
        self.present += 1
        active = self._scenario.active
        self.offered += self._asking + self._rest * self._costs.step(active) / active
        self._queue.append(request)
        self._admit()

    def _admit(self) -> None:
        """Start queued requests while fewer than `active` are being worked on.

        A request that waits for a document does not count.
        """
        while self._queue and len(self._reading) + len(self._answering) < self._scenario.active:
            self._begin(self._queue.popleft())

    def _begin(self, request: Request) -> None:
        document = request.document
        at_hand = self._memory.use(document)
        if document in self._waiting:
            request.source = "memory"
            self._waiting[document].append(request)
        elif at_hand:
            request.source = "memory"
            self._ask(request)
        else:
            request.source = "disk" if document in self._disk else "text"
            self._waiting[document] = [request]
            self._fetch(document)

    @property
    def _asking(self) -> float:
        """Seconds of work from the start of a question to the first token of its answer."""
        return self._costs.asking + self._scenario.question * self._costs.question

    @property
    def _rest(self) -> int:
        """Number of decoding steps of an answer: its first token needs no step."""
        return self._scenario.answer - 1

    def _fetch(self, document: int) -> None:
        saved = document in self._disk
        needed = self._costs.opening if saved else self._costs.reading * self._costs.tokens
        self.offered += needed
        self.read += not saved
        self._reading.add(document, needed)

    def _ask(self, request: Request) -> None:
        self._reading.add(request, self._asking)

    def next(self) -> float:
        """Return the time at which the next piece of work ends; infinite if there is no work."""
        reading, answering = self._rates()
        return self._now + min(self._reading.left(reading), self._answering.left(answering))

    def advance(self, now: float) -> None:
        """Advance the time to `now`; no work may end before that."""
        reading, answering = self._rates()
        seconds = now - self._now
        self._reading.serve(seconds, reading)
        self._answering.serve(seconds, answering)
        self.busy += seconds if self.present else 0.0
        self._now = now

    def end(self) -> None:
        """Complete the piece of work that ends now, and start the work that follows."""
        reading, answering = self._rates()
        if self._answering.left(answering) < self._reading.left(reading):
            self._answered(self._answering.take())
        else:
            self._was_read(self._reading.take())
        self._admit()

    def _was_read(self, member: _Reading) -> None:
        if isinstance(member, Request):
            member.first = self._now
            if self._rest:
                self._answering.add(member, self._rest)
            else:
                self._answered(member)
            return
        self._disk.add(member)
        for request in self._waiting.pop(member):
            self._ask(request)

    def _answered(self, request: Request) -> None:
        request.done = self._now
        self.present -= 1

    def _rates(self) -> tuple[float, float]:
        """Return rates per second: of work for each text being read, of tokens for each answer."""
        reads, answers = len(self._reading), len(self._answering)
        share = self._scenario.reading_share if reads and answers else float(bool(reads))
        step = self._costs.step(answers) if answers else math.inf
        return share / max(1, reads), (1 - share) / step
