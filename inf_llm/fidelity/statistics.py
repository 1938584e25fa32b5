"""Means over questions, with standard errors clustered by context.

Questions about one context share its text and its wording, so they do not count as independent.
Errors are those of the jackknife over contexts: every context is left out once (Efron and Stein,
1981). With fewer than two contexts there is none.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

LEAST_GAP = 1.0
"""Nats between window and full attention, below which a share of the gap says nothing."""

_K = TypeVar("_K", bound=Hashable)


@dataclass(frozen=True)
class Estimate:
    """A figure and its standard error, None where there is none."""

    value: float
    error: float | None = None


def jackknife(
    clusters: Mapping[_K, Sequence[tuple[float, ...]]],
    figure: Callable[[Sequence[float]], float],
) -> Estimate:
    """A figure of the means of several columns, and its error.

    Args:
        clusters: by context, its rows; every row has the same columns.
        figure: the figure, from the mean of every column over all rows.
    """
    sums = {key: _sums(rows) for key, rows in clusters.items()}
    counts = {key: len(rows) for key, rows in clusters.items()}
    total = _sums(list(sums.values()))
    count = sum(counts.values())
    value = figure([each / count for each in total])
    if len(clusters) < 2:
        return Estimate(value)
    without = [
        figure([(t - own) / (count - counts[key]) for t, own in zip(total, sums[key], strict=True)])
        for key in clusters
    ]
    n, centre = len(without), sum(without) / len(without)
    spread = sum((each - centre) ** 2 for each in without)
    return Estimate(value, math.sqrt((n - 1) / n * spread))


def _sums(rows: Sequence[Sequence[float]]) -> list[float]:
    return [sum(column) for column in zip(*rows, strict=True)]


def mean(columns: Sequence[float]) -> float:
    """The figure that is the mean of the only column."""
    return columns[0]


def difference(columns: Sequence[float]) -> float:
    """The mean of the first column less that of the second."""
    return columns[0] - columns[1]


def gap_closed(columns: Sequence[float]) -> float:
    """Of the loss under window, rule and full attention: the share of the gap that is closed.

    It is a ratio of means and not clipped: 1 at full attention, 0 at the window alone.
    """
    window, rule, full = columns
    return (window - rule) / (window - full) if window != full else math.nan


def share(columns: Sequence[float]) -> float:
    """The first column's part of the second."""
    return columns[0] / columns[1] if columns[1] else math.nan
