"""Means over questions, with standard errors clustered by context.

Questions about one context share its text and its wording, so they do not count as independent.
Standard errors come from the jackknife over contexts: the figure is computed again without each
context (Efron and Stein, 1981). With fewer than two contexts there is no standard error.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

MIN_GAP = 1.0
"""Gap in nats between window and full attention below which a share of it has no meaning."""

_K = TypeVar("_K", bound=Hashable)


@dataclass(frozen=True)
class Estimate:
    """A figure and its standard error, which is None if it cannot be computed."""

    value: float
    error: float | None = None


def jackknife(
    clusters: Mapping[_K, Sequence[tuple[float, ...]]],
    figure: Callable[[Sequence[float]], float],
) -> Estimate:
    """Compute a figure from the means of several columns, and its standard error.

    Args:
        clusters: the rows of each context; all rows have the same columns.
        figure: computes the figure from the means of the columns over all rows.
    """
    sums = {key: _sums(rows) for key, rows in clusters.items()}
    counts = {key: len(rows) for key, rows in clusters.items()}
    total = _sums(list(sums.values()))
    count = sum(counts.values())
    value = figure([each / count for each in total])
    if len(clusters) < 2:
        return Estimate(value)
    without = [
        figure(
            [(t - part) / (count - counts[key]) for t, part in zip(total, sums[key], strict=True)]
        )
        for key in clusters
    ]
    n, centre = len(without), sum(without) / len(without)
    spread = sum((each - centre) ** 2 for each in without)
    return Estimate(value, math.sqrt((n - 1) / n * spread))


def _sums(rows: Sequence[Sequence[float]]) -> list[float]:
    return [sum(column) for column in zip(*rows, strict=True)]


def mean(columns: Sequence[float]) -> float:
    """Return the mean of the only column."""
    return columns[0]


def difference(columns: Sequence[float]) -> float:
    """Return the mean of the first column minus that of the second."""
    return columns[0] - columns[1]


def gap_closed(columns: Sequence[float]) -> float:
    """Return the share of the gap between window and full attention that a rule closes.

    The columns are the losses under the window alone, the rule, and full attention. The share is a
    ratio of means and is not clipped: 1 for full attention, 0 for the window alone.
    """
    window, rule, full = columns
    return (window - rule) / (window - full) if window != full else math.nan


def share(columns: Sequence[float]) -> float:
    """Return the mean of the first column divided by that of the second."""
    return columns[0] / columns[1] if columns[1] else math.nan
