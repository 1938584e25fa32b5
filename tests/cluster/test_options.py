"""How many replicas, in words."""

from __future__ import annotations

from typing import Any

import pytest

from inf_llm.cluster.options import Cluster, cluster_of, parse_replicas
from inf_llm.errors import ConfigError


def test_a_number_or_two() -> None:
    assert parse_replicas("--replicas", "2") == (2, 2)
    assert parse_replicas("--replicas", "1-8") == (1, 8)
    assert Cluster(None, 1, 1).description == "1 replica"
    assert Cluster(None, 2, 2).description == "2 replicas"
    assert Cluster(None, 1, 8).description == "1 to 8 replicas"


@pytest.mark.parametrize("text", ["0", "", "two", "8-1", "0-4", "-3", "1.5", "1-2-3"])
def test_others_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"--replicas is .*: give a number from 1"):
        parse_replicas("--replicas", text)


def test_options_of_a_cluster() -> None:
    assert cluster_of("local", None, address=None, cpus=None) is None
    assert cluster_of("ray", None, address=None) == Cluster()
    assert cluster_of("ray", "1-8", cpus=2.0) == Cluster(least=1, most=8, cpus=2.0)


@pytest.mark.parametrize(
    ("replicas", "given", "name"),
    [
        ("2", {}, "--replicas"),
        (None, {"address": "auto"}, "--address"),
        (None, {"gpus": 1.0, "cpus": None}, "--replica-gpus"),
        (None, {"tokens": 7}, "--tokens-per-replica"),
    ],
)
def test_without_one_they_are_refused(replicas: str | None, given: Any, name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} is for --engine ray: add that, or leave it out"):
        cluster_of("local", replicas, **given)
