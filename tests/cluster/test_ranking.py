"""The order of replicas for a memory."""

from __future__ import annotations

import random
from collections import Counter

from inf_llm.cluster.ranking import idle_first, ranked

NAMES = [f"r{number}" for number in range(8)]
KEYS = [f"doc-{number}" for number in range(2000)]


def test_the_replica_that_a_document_names_is_first() -> None:
    assert ranked("doc-r5-abc", NAMES)[0] == "r5"
    assert ranked("doc-r5-abc", NAMES[:5])[0] in NAMES[:5]


def test_every_front_finds_the_same_order() -> None:
    other = random.Random(0).sample(NAMES, len(NAMES))
    assert all(ranked(key, NAMES) == ranked(key, other) for key in KEYS[:50])
    assert sorted(ranked(KEYS[0], NAMES)) == sorted(NAMES)


def test_keys_are_spread_evenly() -> None:
    counts = Counter(ranked(key, NAMES)[0] for key in KEYS)
    assert min(counts.values()) > 0.75 * len(KEYS) / len(NAMES)


def test_one_replica_less_moves_only_its_own_keys() -> None:
    for key in KEYS[:300]:
        before, after = ranked(key, NAMES), ranked(key, NAMES[1:])
        assert after == [name for name in before if name != NAMES[0]]


def test_those_that_have_much_to_do_come_last() -> None:
    some, more = {"a": 9, "b": 8, "c": 0}, {"a": 11, "b": 12, "c": 9}
    assert idle_first(["a", "b", "c"], some.__getitem__, 8) == ["b", "c", "a"]
    assert idle_first(["a", "b", "c"], more.__getitem__, 8) == ["c", "a", "b"]
