"""The interface of all subjects: the programs that are compared."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

from benchmark import process_memory
from benchmark.beside.job import Job
from inf_llm.fidelity.tasks import Question

WARM_UP = 256
"""Number of tokens of the warm-up prompt, which shares no prefix with the document."""


class Refused(Exception):  # noqa: N818 (a result, not a fault)
    """The program refused this document; the text is its message."""


class Subject(ABC):
    """A program with a model, which answers questions about one document.

    Args:
        job: the measurement.
    """

    def __init__(self, job: Job) -> None:
        self.job = job

    @abstractmethod
    def warm_up(self) -> None:
        """Run a short prompt, so that one-time costs of the process are not measured."""

    @abstractmethod
    def ask(self, question: Question, tokens: int) -> Iterator[int]:
        """Yield greedily decoded tokens of an answer, with end tokens excluded.

        The first call reads the document. Later calls read only what cannot be reused.

        Raises:
            Refused: the program refused the document.
        """

    @abstractmethod
    def likelihood(self, question: Question) -> float | None:
        """Return the negative log-likelihood of the right answer in nats per token.

        The result is None if the program does not report it.
        """

    @abstractmethod
    def text(self, ids: list[int]) -> str:
        """Decode token ids into text."""

    def how(self) -> dict[str, Any]:
        """Return the settings that the subject was loaded with, such as dtype and flags."""
        return {}

    def peak(self) -> int | None:
        """Return the peak memory of the program so far, in bytes; None if not available."""
        return process_memory.peak()

    def seconds(self) -> float:
        """Return the processor seconds of the program so far, over all cores."""
        return time.process_time()

    def close(self) -> None:  # noqa: B027 (most subjects have nothing to close)
        """Stop processes and close files that would outlive the object."""
