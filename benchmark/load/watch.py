"""Memory, open files and threads of a process over time."""

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
    """The resources of a process at one moment.

    Attributes:
        seconds: time since the start of watching.
        memory: resident bytes.
        files: number of open file descriptors.
        threads: number of threads.
    """

    seconds: float
    memory: int
    files: int
    threads: int


async def watched(server: Server, every: float, samples: list[Sample]) -> None:
    """Append a sample every `every` seconds until the task is cancelled."""
    started = time.monotonic()
    while True:
        taken = server.memory(), server.open_files(), server.threads()
        if None not in taken:
            samples.append(Sample(time.monotonic() - started, *map(int, taken)))  # type: ignore
        await asyncio.sleep(every)


def growth(samples: Sequence[Sample]) -> int:
    """Return the median bytes of the last quarter minus those of the first quarter."""
    first, last = (median(s.memory for s in part) for part in _ends(samples))
    return int(last - first)


def figures(samples: Sequence[Sample]) -> dict[str, Any]:
    """Return memory, its slope, files and threads of the first and the last quarter."""
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
    """Return the slope of the memory in bytes per second."""
    if len(part) < 2:
        return 0.0
    return linear_regression([s.seconds for s in part], [s.memory for s in part]).slope
