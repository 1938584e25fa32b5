"""How many replicas there should be."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from inf_llm.cluster.scaling import WAITING_TOKENS, ByTokens


@pytest.mark.parametrize(
    ("waiting", "wanted"),
    [
        ({}, 1),
        ({"a": 0.0}, 1),
        ({"a": 1000.0}, 1),
        ({"a": 1001.0}, 2),
        ({"a": 900.0, "b": 2200.0}, 4),
    ],
)
def test_replicas_by_the_tokens_that_wait(waiting: dict[str, float], wanted: int) -> None:
    context = SimpleNamespace(aggregated_metrics={WAITING_TOKENS: waiting})
    assert ByTokens(1000)(context) == (wanted, {})


def test_before_anything_was_measured_there_is_one() -> None:
    assert ByTokens(1000)(SimpleNamespace(aggregated_metrics=None)) == (1, {})
