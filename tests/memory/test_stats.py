"""Counts added up over layers."""

from __future__ import annotations

from inf_llm.memory.stats import MemoryStats


def test_total() -> None:
    parts = [MemoryStats(10, 1, 2, 3, 4, 5, 6, 7, 8), MemoryStats(12, 1, 1, 1, 1, 1, 1, 1, 1)]
    assert MemoryStats.total(parts) == MemoryStats(12, 2, 3, 4, 5, 6, 7, 8, 9)
    assert MemoryStats.total(iter(parts[:1])) == parts[0]


def test_total_of_nothing() -> None:
    assert MemoryStats.total([]) == MemoryStats()
