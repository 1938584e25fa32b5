"""Where replicas run, and how many."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from inf_llm.errors import ConfigError

_OPTIONS = {
    "replicas": "--replicas",
    "address": "--address",
    "cpus": "--replica-cpus",
    "gpus": "--replica-gpus",
    "tokens": "--tokens-per-replica",
}


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
    def on_this_machine(self) -> int:
        """How many replicas may have to share the memory of this machine."""
        return self.most if self.address is None else 1

    @property
    def said(self) -> str:
        """How many replicas."""
        if self.most > self.least:
            return f"{self.least} to {self.most} replicas"
        return f"{self.least} replica{'s' * (self.least > 1)}"


def cluster_of(engine: str, replicas: str | None, **given: Any) -> Cluster | None:
    """What options of a command say; None for no cluster.

    Args:
        engine: ``ray``, or another.
        replicas: see `parse_replicas`; None for one.
        **given: other fields of `Cluster`; None for what is not given.

    Raises:
        ConfigError: there are some, and no cluster, or they are wrong.
    """
    refuse_without_ray(engine, replicas=replicas, **given)
    if engine != "ray":
        return None
    least, most = (1, 1) if replicas is None else parse_replicas("--replicas", replicas)
    chosen = {name: value for name, value in given.items() if value is not None}
    return Cluster(least=least, most=most, **chosen)


def refuse_without_ray(engine: str, **given: Any) -> None:
    """See that no option of a cluster is given where there is none.

    Args:
        engine: ``ray``, or another.
        **given: fields of `Cluster`, or `replicas`; None for what is not given.

    Raises:
        ConfigError: one is.
    """
    asked = [_OPTIONS[name] for name, value in given.items() if value is not None]
    if asked and engine != "ray":
        raise ConfigError(f"{asked[0]} is for --engine ray: add that, or leave it out")


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
