"""Scenarios of the simulation whose behaviour is known from theory, and costs for them."""

from __future__ import annotations

from typing import Any

from benchmark.simulation.costs import Costs
from benchmark.simulation.scenario import Scenario


def costs(**more: Any) -> Costs:
    """A question about a document at hand takes a second; its answer nothing more."""
    free = {"reading": 0.0, "opening": 0.0, "asking": 1.0, "question": 0.0}
    answer = {"answering": 1e-9, "together": 1e-9, "rows": 8}
    named = dict.fromkeys(("model", "machine", "how", "dtype"), "none")
    return Costs(**{**named, **free, **answer, "tokens": 1000, "bytes": 1, **more})


def scenario(load: float = 0.5, **more: Any) -> Scenario:
    """One document, and so many questions in a second; answers are one token."""
    plain: dict[str, Any] = {"users": 100, "think": 100 / load, "documents": 1, "answer": 1}
    many = {"requests": 40_000, "warm_up": 0.1, "active": 1_000_000}
    return Scenario(**{**plain, **many, **more})
