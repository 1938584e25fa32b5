"""Which block leaves the device first: the rules. `slot_table` applies them.

A rule gives every page a priority, and the page with the lowest one leaves. Priorities may be
numbers or tensors of them: a rule only calculates.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TypeVar

from torch import Tensor

Number = TypeVar("Number", float, Tensor)


class Policy(ABC):
    """One rule.

    Attributes:
        fades: factor on all priorities when an execution block begins.
        needs_mass: whether the attention mass that a page receives is added to its priority.
    """

    fades = 1.0
    needs_mass = False

    def loaded(self, now: Number) -> Number:
        """The priority of a page that comes in; `now` grows with every page that is used."""
        return now

    @abstractmethod
    def used(self, before: Number, now: Number) -> Number:
        """The priority of a page that was there, with `before`, and is used again."""


class LeastRecentlyUsed(Policy):
    """The page that was recalled longest ago leaves."""

    def used(self, before: Number, now: Number) -> Number:
        """See `Policy.used`."""
        return now


class FirstInFirstOut(Policy):
    """The page that was loaded first leaves."""

    def used(self, before: Number, now: Number) -> Number:
        """See `Policy.used`."""
        return before


class LeastScored(Policy):
    """The page that attention cared for least leaves; old care fades by `decay` every step."""

    needs_mass = True

    def __init__(self, decay: float) -> None:
        self.fades = decay

    def loaded(self, now: Number) -> Number:
        """See `Policy.loaded`."""
        return now * 0.0

    def used(self, before: Number, now: Number) -> Number:
        """See `Policy.used`."""
        return before
