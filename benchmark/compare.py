"""Compare runs on the same samples: score differences with confidence intervals.

The difference of two runs on a task is the mean over the samples that both runs have. Its 95 %
interval is a percentile bootstrap over those samples, seeded so that tables are reproducible.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmark.scores import RunScores

LEVEL = 0.95
RESAMPLES = 5000


@dataclass(frozen=True)
class Difference:
    """The score of one run minus that of the first run, on a task or over several, in points.

    Attributes:
        task: a task's name, or the name of a mean over several tasks.
        n: number of samples that both runs have.
        difference: mean paired difference; None if the runs share no sample.
        low: lower end of the 95 % interval; None for fewer than two samples.
        high: upper end of the interval; None for fewer than two samples.
        unpaired: number of samples that only one of the two runs has.
    """

    task: str
    n: int
    difference: float | None
    low: float | None
    high: float | None
    unpaired: int

    @property
    def sure(self) -> bool:
        """Whether the interval excludes zero."""
        return self.low is not None and self.high is not None and not self.low <= 0 <= self.high


def compare(first: RunScores, other: RunScores, seed: int = 0) -> list[Difference]:
    """Return the differences on all tasks that both runs have, then of the mean over the tasks."""
    rows = []
    drawn = []
    for task, ours in first.tasks.items():
        if task not in other.tasks:
            continue
        pairs = paired(ours.by_id, other.tasks[task].by_id)
        rng = np.random.default_rng([seed, *task.encode()])
        means = _resampled_means(pairs, rng)
        unpaired = ours.n + other.tasks[task].n - 2 * len(pairs)
        rows.append(_difference(task, pairs, means, unpaired))
        if len(pairs):
            drawn.append((float(pairs.mean()), means))
    if len(drawn) > 1:
        rows.append(_mean_difference(drawn, sum(row.n for row in rows)))
    return rows


def paired(first: Mapping[str, float], other: Mapping[str, float]) -> np.ndarray:
    """Return `other` minus `first` for each sample that both runs have."""
    return np.array([other[key] - first[key] for key in first if key in other], dtype=float)


def _resampled_means(pairs: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return `RESAMPLES` bootstrap means, computed 100 at a time to bound memory."""
    if len(pairs) == 0:
        return np.empty(0)
    means = [
        pairs[rng.integers(0, len(pairs), size=(100, len(pairs)))].mean(axis=1)
        for _ in range(RESAMPLES // 100)
    ]
    return np.concatenate(means)


def _interval(means: np.ndarray) -> tuple[float, float]:
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.percentile(means, [tail, 100 - tail])
    return float(low), float(high)


def _difference(task: str, pairs: np.ndarray, means: np.ndarray, unpaired: int) -> Difference:
    if len(pairs) < 2:
        alone = float(pairs.mean()) if len(pairs) else None
        return Difference(task, len(pairs), alone, None, None, unpaired)
    return Difference(task, len(pairs), float(pairs.mean()), *_interval(means), unpaired)


def _mean_difference(drawn: Sequence[tuple[float, np.ndarray]], n: int) -> Difference:
    """Return the mean difference, with equal task weights and independent resamples per task."""
    difference = sum(mean for mean, _ in drawn) / len(drawn)
    means = np.mean([resampled for _, resampled in drawn], axis=0)
    return Difference(f"mean of {len(drawn)} tasks", n, difference, *_interval(means), 0)
