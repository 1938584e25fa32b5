"""Where replicas run, and how many."""

from __future__ import annotations

from dataclasses import dataclass

from inf_llm.errors import ConfigError


@dataclass(frozen=True)
class Cluster:
    """See the module's text.

    Attributes:
        address: of a Ray cluster; None for one of this machine alone, which ends with the process.
        least, most: replicas; between them their number follows what waits.
        cpus, gpus: of each.
        tokens: of prompts that may wait for each before there are more.
    """

    address: str | None = None
    least: int = 1
    most: int = 1
    cpus: float = 1
    gpus: float = 0
    tokens: int = 50_000

    @property
    def said(self) -> str:
        """How many replicas."""
        if self.most > self.least:
            return f"{self.least} to {self.most} replicas"
        return f"{self.least} replica{'s' * (self.least > 1)}"


def parse_replicas(option: str, text: str) -> tuple[int, int]:
    """A number of replicas, or the least and the most: ``2`` or ``1-8``.

    Raises:
        ConfigError: it is neither.
    """
    least, _, most = text.partition("-")
    try:
        numbers = int(least), int(most or least)
    except ValueError:
        numbers = 0, 0
    if not 1 <= numbers[0] <= numbers[1]:
        raise ConfigError(f"{option} is {text!r}: give a number from 1, or two as 1-8")
    return numbers
