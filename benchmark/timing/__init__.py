"""Time and memory measurements of the attention types, for `benchmark/speed.py`."""
