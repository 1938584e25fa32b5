"""Who asks what, when: a trace of questions that is the same for all numbers of replicas."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass

from inf_llm.checks import at_least, number


@dataclass(frozen=True)
class Scenario:
    """The load, and how replicas are used.

    Attributes:
        users: who ask independently of each other.
        think: seconds between two questions of a user, on average (Poisson).
        documents: that they ask about.
        zipf: the document of rank r is asked about in proportion to r to the power of -zipf.
        question: tokens of a question.
        answer: tokens of an answer.
        requests: questions in all.
        warm_up: share of them, the first ones, that no figure counts.
        budget: bytes of a replica for documents.
        spill: a question leaves the owner of its document where more requests than this are there.
        active: requests that a replica works on at once; more wait for one of them to end.
        reading_share: of a replica's time for reading while it is answering too.
        cold: whether nothing was read before the first question; else all documents were, and
            their memories are on the disk.
        seed: of all that is drawn.

    Raises:
        SettingsError: a value is out of range.
    """

    users: int = 1000
    think: float = 600.0
    documents: int = 200
    zipf: float = 1.0
    question: int = 50
    answer: int = 100
    requests: int = 20_000
    warm_up: float = 0.5
    budget: int = 64 << 30
    spill: int = 8
    active: int = 64
    reading_share: float = 0.5
    cold: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        at_least(self, 1, "users", "documents", "question", "answer", "requests", "active")
        at_least(self, 0, "spill", "seed")
        number("think", self.think, 1e-6, 1e9)
        number("zipf", self.zipf, 0, 10)
        number("warm_up", self.warm_up, 0, 0.99)
        number("budget", self.budget, 1, 1e18)
        number("reading_share", self.reading_share, 0.01, 0.99)

    @property
    def rate(self) -> float:
        """Questions in a second."""
        return self.users / self.think


@dataclass
class Request:
    """A question, and what became of it.

    Attributes:
        arrived: when it was asked, seconds.
        document: what it is about.
        replica: number of the one that answers.
        source: where the document was when work on the question began: `memory` (or being put
            there), `disk`, or `text`, which is read anew.
        first: when the answer had its first token.
        done: when it had its last.
    """

    arrived: float
    document: int
    replica: int = -1
    source: str = ""
    first: float = -1.0
    done: float = -1.0


def traffic(scenario: Scenario) -> list[Request]:
    """Questions in the order of their time. The users' streams together are one Poisson stream."""
    draw = random.Random(scenario.seed)
    gaps = (draw.expovariate(scenario.rate) for _ in range(scenario.requests))
    ranks = range(1, scenario.documents + 1)
    shares = list(itertools.accumulate(rank**-scenario.zipf for rank in ranks))
    chosen = draw.choices(range(scenario.documents), cum_weights=shares, k=scenario.requests)
    return [Request(*both) for both in zip(itertools.accumulate(gaps), chosen, strict=True)]
