"""Options of a cluster: its address, and the number and resources of its replicas."""

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
    """The cluster that replicas run on, and their number and resources.

    Attributes:
        address: address of a Ray cluster; None for a cluster on this machine alone, which ends with
            the process.
        least, most: smallest and largest number of replicas; between these the number follows the
            waiting tokens.
        cpus, gpus: CPU cores and GPUs of each replica.
        tokens: prompt tokens that may wait per replica before another replica starts.
    """

    address: str | None = None
    least: int = 1
    most: int = 1
    cpus: float = 1
    gpus: float = 0
    tokens: int = 50_000

    @property
    def on_this_machine(self) -> int:
        """Largest number of replicas that may share the memory of this machine."""
        return self.most if self.address is None else 1

    @property
    def description(self) -> str:
        """The number of replicas, in words."""
        if self.most > self.least:
            return f"{self.least} to {self.most} replicas"
        return f"{self.least} replica{'s' * (self.least > 1)}"


def cluster_of(engine: str, replicas: str | None, **given: Any) -> Cluster | None:
    """Return the cluster that the options of a command describe; None if the engine is not Ray.

    Args:
        engine: ``ray``, or another engine.
        replicas: see `parse_replicas`; None for one replica.
        **given: other fields of `Cluster`; None for an option that is not given.

    Raises:
        ConfigError: an option is given for an engine other than Ray, or `replicas` is wrong.
    """
    refuse_without_ray(engine, replicas=replicas, **given)
    if engine != "ray":
        return None
    least, most = (1, 1) if replicas is None else parse_replicas("--replicas", replicas)
    chosen = {name: value for name, value in given.items() if value is not None}
    return Cluster(least=least, most=most, **chosen)


def refuse_without_ray(engine: str, **given: Any) -> None:
    """Check that no cluster option is given for an engine other than Ray.

    Args:
        engine: ``ray``, or another engine.
        **given: fields of `Cluster`, or `replicas`; None for an option that is not given.

    Raises:
        ConfigError: a cluster option is given, and the engine is not Ray.
    """
    options = [_OPTIONS[name] for name, value in given.items() if value is not None]
    if options and engine != "ray":
        raise ConfigError(f"{options[0]} is for --engine ray: add that, or leave it out")


def parse_replicas(option: str, text: str) -> tuple[int, int]:
    """Return the smallest and the largest number of replicas, from ``2`` or ``1-8``.

    Raises:
        ConfigError: the text has another form.
    """
    least, _, most = text.partition("-")
    try:
        numbers = int(least), int(most or least)
    except ValueError:
        numbers = 0, 0
    if not 1 <= numbers[0] <= numbers[1]:
        raise ConfigError(f"{option} is {text!r}: give a number from 1, or two as 1-8")
    return numbers
