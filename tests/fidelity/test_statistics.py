"""Ratios of means and their errors, against numpy written out."""

from __future__ import annotations

import math

import numpy as np
import pytest

from inf_llm.fidelity.statistics import difference, gap_closed, jackknife, mean, share

DRAW = np.random.default_rng(0)
SIZES = (4, 4, 3, 5)
CLUSTERS = {
    number: [tuple(row) for row in DRAW.normal((3.0, 1.0, 0.5), 0.2, (size, 3))]
    for number, size in enumerate(SIZES)
}


def test_the_share_of_the_gap_and_its_error() -> None:
    rows = np.concatenate([np.array(CLUSTERS[number]) for number in CLUSTERS])
    owner = np.repeat(range(4), SIZES)

    def closed(some: np.ndarray) -> float:
        window, rule, full = some.mean(0)
        return float((window - rule) / (window - full))

    without = np.array([closed(rows[owner != number]) for number in range(4)])
    error = math.sqrt(3 / 4 * ((without - without.mean()) ** 2).sum())
    got = jackknife(CLUSTERS, gap_closed)
    assert got.value == pytest.approx(closed(rows))
    assert got.error == pytest.approx(error)


def test_for_means_of_equal_contexts_it_is_the_usual_error() -> None:
    means = DRAW.normal(2.0, 1.0, 6)
    clusters = {i: [(m - 0.1,), (m + 0.1,)] for i, m in enumerate(means)}
    got = jackknife(clusters, mean)
    assert got.value == pytest.approx(means.mean())
    assert got.error == pytest.approx(means.std(ddof=1) / math.sqrt(6))


def test_questions_of_one_context_do_not_count_as_independent() -> None:
    values = DRAW.normal(2.0, 1.0, 5)
    once = jackknife({i: [(value,)] for i, value in enumerate(values)}, mean)
    often = jackknife({i: [(value,)] * 9 for i, value in enumerate(values)}, mean)
    assert once.error == pytest.approx(often.error)


def test_one_context_has_no_error_and_the_figures_are_not_clipped() -> None:
    assert jackknife({0: [(3.0, 0.5, 1.0)]}, gap_closed).error is None
    assert gap_closed((3.0, 0.5, 1.0)) == 1.25
    assert gap_closed((3.0, 4.0, 1.0)) == -0.5
    assert math.isnan(gap_closed((1.0, 0.5, 1.0)))
    assert difference((3.0, 1.0)) == 2.0
    assert share((1.0, 4.0)) == 0.25
    assert math.isnan(share((0.0, 0.0)))
