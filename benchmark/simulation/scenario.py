"""The load of a simulation: a trace of questions, the same for all numbers of replicas."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass

from inf_llm.checks import at_least, number


@dataclass(frozen=True)
class Scenario:
    """The load, and the settings of the replicas.

    Attributes:
        users: number of users, who ask independently of each other.
        think: mean seconds between two questions of a user (Poisson process).
        documents: number of documents.
        zipf: exponent of popularity: the document of rank r has weight r to the power of -zipf.
        question: number of tokens of a question.
        answer: number of tokens of an answer.
        requests: number of questions in total.
        warm_up: share of the requests, from the first on, that the figures exclude.
        budget: bytes of a replica for documents.
        spill: number of requests at a document's owner above which a question goes to another
            replica.
        active: number of requests that a replica works on at once; further requests wait.
        reading_share: share of a replica's time for reading while it also decodes answers.
        cold: whether no document was read before the first question. Otherwise all documents were
            read, and their memories are on the disk.
        seed: seed of all random choices.

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
        """Questions per second of all users together."""
        return self.users / self.think


@dataclass
class Request:
    """A question and its result.

    Attributes:
        arrived: time of arrival in seconds.
        document: number of the document.
        replica: number of the replica that answers.
        source: place of the document when work on the question began: `memory` (also if it was
            being read or opened), `disk`, or `text` if the document had to be read.
        first: time of the answer's first token.
        done: time of the answer's last token.
    """

    arrived: float
    document: int
    replica: int = -1
    source: str = ""
    first: float = -1.0
    done: float = -1.0


def traffic(scenario: Scenario) -> list[Request]:
    """Return the questions in order of arrival, as one Poisson process for all users together."""
    draw = random.Random(scenario.seed)
    gaps = (draw.expovariate(scenario.rate) for _ in range(scenario.requests))
    ranks = range(1, scenario.documents + 1)
    shares = list(itertools.accumulate(rank**-scenario.zipf for rank in ranks))
    chosen = draw.choices(range(scenario.documents), cum_weights=shares, k=scenario.requests)
    return [Request(*both) for both in zip(itertools.accumulate(gaps), chosen, strict=True)]
