"""Eviction policies for the slots of the device cache. The module `slot_table` applies them.

A policy gives every page a priority, and the page with the lowest priority is evicted first.
Priorities are numbers or tensors; the same formulas work for both.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TypeVar

from torch import Tensor

Number = TypeVar("Number", float, Tensor)


class Policy(ABC):
    """An eviction policy.

    Attributes:
        fades: factor on all priorities at each fetch of blocks.
        needs_mass: whether the attention mass that a page receives is added to its priority.
    """

    fades = 1.0
    needs_mass = False

    def loaded(self, now: Number) -> Number:
        """Return the priority of a page that is loaded; `now` grows with every page used."""
        return now

    @abstractmethod
    def used(self, before: Number, now: Number) -> Number:
        """Return the priority of a page that is used again; its priority is `before`."""


class LeastRecentlyUsed(Policy):
    """Policy that evicts the page that was recalled longest ago."""

    def used(self, before: Number, now: Number) -> Number:
        """See `Policy.used`."""
        return now


class FirstInFirstOut(Policy):
    """Policy that evicts the page that was loaded first."""

    def used(self, before: Number, now: Number) -> Number:
        """See `Policy.used`."""
        return before


class LeastScored(Policy):
    """Policy that evicts the page with the least mass; `decay` is a factor on mass per fetch."""

    needs_mass = True

    def __init__(self, decay: float) -> None:
        self.fades = decay

    def loaded(self, now: Number) -> Number:
        """See `Policy.loaded`."""
        return now * 0.0

    def used(self, before: Number, now: Number) -> Number:
        """See `Policy.used`."""
        return before
