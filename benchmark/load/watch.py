"""What a process takes over time: memory, open files, threads."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import linear_regression, median
from typing import Any

from benchmark.load.server import Server


@dataclass(frozen=True)
class Sample:
    """At one moment, in seconds from the first one.

    Attributes:
        seconds: when.
        memory: bytes that are resident.
        files: open descriptors.
        threads: of the process.
    """

    seconds: float
    memory: int
    files: int
    threads: int


async def watched(server: Server, every: float, samples: list[Sample]) -> None:
    """Take samples until this is cancelled."""
    started = time.monotonic()
    while True:
        taken = server.memory(), server.open_files(), server.threads()
        if None not in taken:
            samples.append(Sample(time.monotonic() - started, *map(int, taken)))  # type: ignore
        await asyncio.sleep(every)


def growth(samples: Sequence[Sample]) -> int:
    """Bytes that the last quarter has more than the first one, by their medians."""
    first, last = (median(s.memory for s in part) for part in _ends(samples))
    return int(last - first)


def figures(samples: Sequence[Sample]) -> dict[str, Any]:
    """Of the first quarter and the last one: memory, its slope, files and threads."""
    return {
        name: {
            "memory": int(median(s.memory for s in part)),
            "most memory": max(s.memory for s in part),
            "bytes per minute": round(60 * _slope(part)),
            "open files": max(s.files for s in part),
            "threads": max(s.threads for s in part),
        }
        for name, part in zip(("first quarter", "last quarter"), _ends(samples), strict=True)
    }


def _ends(samples: Sequence[Sample]) -> tuple[Sequence[Sample], Sequence[Sample]]:
    quarter = max(1, len(samples) // 4)
    return samples[:quarter], samples[-quarter:]


def _slope(part: Sequence[Sample]) -> float:
    """Bytes per second."""
    if len(part) < 2:
        return 0.0
    return linear_regression([s.seconds for s in part], [s.memory for s in part]).slope
