"""How many replicas, in words."""

from __future__ import annotations

import pytest

from inf_llm.cluster.options import Cluster, parse_replicas
from inf_llm.errors import ConfigError


def test_a_number_or_two() -> None:
    assert parse_replicas("--replicas", "2") == (2, 2)
    assert parse_replicas("--replicas", "1-8") == (1, 8)
    assert Cluster(None, 1, 1).said == "1 replica"
    assert Cluster(None, 2, 2).said == "2 replicas"
    assert Cluster(None, 1, 8).said == "1 to 8 replicas"


@pytest.mark.parametrize("text", ["0", "", "two", "8-1", "0-4", "-3", "1.5", "1-2-3"])
def test_others_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"--replicas is .*: give a number from 1"):
        parse_replicas("--replicas", text)
