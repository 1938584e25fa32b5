"""What every subject can do, whichever program it is."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

from benchmark import process_memory
from benchmark.beside.job import Job
from inf_llm.fidelity.tasks import Question

WARM_UP = 256
"""Tokens of a first prompt, which shares none of its beginning with the document's."""


class Refused(Exception):  # noqa: N818 (a result, not a fault)
    """The program does not take this document; the text is what it said."""


class Subject(ABC):
    """A program with a model in it, which is asked about one document.

    Args:
        job: what is measured.
    """

    def __init__(self, job: Job) -> None:
        self.job = job

    @abstractmethod
    def warm_up(self) -> None:
        """Do once what only the first prompt of a process costs."""

    @abstractmethod
    def ask(self, question: Question, tokens: int) -> Iterator[int]:
        """The likeliest tokens of an answer, one after the other; an end token is not among them.

        The first call reads the document; a later one reads again only what it must.

        Raises:
            Refused: the program does not take the document.
        """

    @abstractmethod
    def likelihood(self, question: Question) -> float | None:
        """Negative log-likelihood of the right answer, nats a token; None if it is not given."""

    @abstractmethod
    def text(self, ids: list[int]) -> str:
        """Tokens as text."""

    def how(self) -> dict[str, Any]:
        """What was chosen when it was loaded: the number format, flags."""
        return {}

    def peak(self) -> int | None:
        """Most memory of the program so far, bytes."""
        return process_memory.peak()

    def seconds(self) -> float:
        """Seconds of all processors that the program has used so far."""
        return time.process_time()

    def close(self) -> None:  # noqa: B027 (most have nothing to end)
        """End what outlives the object."""
