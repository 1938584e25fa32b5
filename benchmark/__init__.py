"""Benchmarks with the official metrics: make predictions (`pred.py`), score them (`eval.py`)."""
