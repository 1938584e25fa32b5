"""Metrics that score one prediction, by the definitions of the benchmarks."""
