"""Processor sharing: all members of a queue are served at the same time and at the same rate."""

from __future__ import annotations

import heapq
import itertools
import math
from typing import Generic, TypeVar

_T = TypeVar("_T")


class Shared(Generic[_T]):
    """The members that are being served.

    All members receive service at the same rate. So one counter is enough: the service that a
    member present from the start would have received. A member ends when the counter reaches its
    value at the member's arrival plus the needed service.
    """

    def __init__(self) -> None:
        self._received = 0.0
        self._ends: list[tuple[float, int, _T]] = []
        self._number = itertools.count()

    def __len__(self) -> int:
        return len(self._ends)

    def add(self, member: _T, needed: float) -> None:
        """Add a member that needs an amount `needed` of service."""
        heapq.heappush(self._ends, (self._received + needed, next(self._number), member))

    def serve(self, seconds: float, rate: float) -> None:
        """Serve each member at `rate` for `seconds`."""
        self._received += seconds * rate

    def left(self, rate: float) -> float:
        """Return the seconds until the first member ends; infinite if there are no members."""
        return max(0.0, self._ends[0][0] - self._received) / rate if self._ends else math.inf

    def take(self) -> _T:
        """Remove and return the member that has ended."""
        end, _, member = heapq.heappop(self._ends)
        self._received = max(self._received, end)  # rounding may leave a small rest of service
        return member
