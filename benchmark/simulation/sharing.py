"""Processor sharing: all who wait are served at the same time, each at the same rate."""

from __future__ import annotations

import heapq
import itertools
import math
from typing import Generic, TypeVar

_T = TypeVar("_T")


class Shared(Generic[_T]):
    """What is being served.

    Served together, all have received the same since they came. So one number, what a member
    would have received that was always there, says of each what is left.
    """

    def __init__(self) -> None:
        self._received = 0.0
        self._ends: list[tuple[float, int, _T]] = []
        self._number = itertools.count()

    def __len__(self) -> int:
        return len(self._ends)

    def add(self, member: _T, needed: float) -> None:
        """One more that needs so much service."""
        heapq.heappush(self._ends, (self._received + needed, next(self._number), member))

    def serve(self, seconds: float, rate: float) -> None:
        """Serve each at this rate for so long."""
        self._received += seconds * rate

    def left(self, rate: float) -> float:
        """Seconds to the end of the first to end; infinite where there is none."""
        return max(0.0, self._ends[0][0] - self._received) / rate if self._ends else math.inf

    def take(self) -> _T:
        """The first to end, which has ended."""
        end, _, member = heapq.heappop(self._ends)
        self._received = max(self._received, end)  # where rounding left a little
        return member
