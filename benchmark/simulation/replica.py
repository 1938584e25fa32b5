"""One server: documents in its memory, what it reads, and the answers it gives.

It works as `inf-llm serve` does. Texts that it reads share its time evenly, all answers get a token
in each step, and between the two it goes by `reading_share`. A document that is being read or
opened is waited for by all questions about it.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from typing import TypeAlias

from benchmark.simulation.costs import Costs
from benchmark.simulation.scenario import Request, Scenario
from benchmark.simulation.sharing import Shared

_Reading: TypeAlias = "int | Request"
"""A document, by its number, or a question."""


class Memory:
    """Documents that a replica has at hand; those used least recently leave first.

    Args:
        places: how many there is room for.
    """

    def __init__(self, places: int) -> None:
        self._places = places
        self._held: OrderedDict[int, None] = OrderedDict()

    def use(self, document: int) -> bool:
        """Whether a document is at hand; from now on it is, as the one used last."""
        found = document in self._held
        self._held[document] = None
        self._held.move_to_end(document)
        if len(self._held) > self._places:
            self._held.popitem(last=False)
        return found


class Replica:
    """A server, moved through time by a caller.

    Args:
        costs: of its work.
        scenario: says its budget, and how long questions and answers are.
        disk: documents whose memory is on the disk, which all replicas have.

    Attributes:
        present: requests that it has not answered to the end.
        busy: seconds in which it worked.
        offered: seconds of work that came to it, where as many answers as may be are given at once.
        read: documents that it read.
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
        """A question comes, now."""
        self.present += 1
        active = self._scenario.active
        self.offered += self._asking + self._rest * self._costs.step(active) / active
        self._queue.append(request)
        self._admit()

    def _admit(self) -> None:
        """Let requests begin for which there is room; those that wait for a document take none."""
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
        """Seconds of work to the first token."""
        return self._costs.asking + self._scenario.question * self._costs.question

    @property
    def _rest(self) -> int:
        """Tokens of an answer after the first, which comes of reading the question."""
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
        """When something ends here, if nothing comes before; infinite where there is nothing."""
        reading, answering = self._rates()
        return self._now + min(self._reading.left(reading), self._answering.left(answering))

    def advance(self, now: float) -> None:
        """Work until then; nothing ends before."""
        reading, answering = self._rates()
        seconds = now - self._now
        self._reading.serve(seconds, reading)
        self._answering.serve(seconds, answering)
        self.busy += seconds if self.present else 0.0
        self._now = now

    def end(self) -> None:
        """What ends now ends, and what follows it begins."""
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
        """Seconds of work in a second for each that is read, and tokens for each answer."""
        reads, answers = len(self._reading), len(self._answering)
        share = self._scenario.reading_share if reads and answers else float(bool(reads))
        step = self._costs.step(answers) if answers else math.inf
        return share / max(1, reads), (1 - share) / step
