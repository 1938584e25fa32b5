"""Benchmarks with the official metrics: `pred.py` makes predictions, `eval.py` scores them."""
