"""How fast the attention types are and what they hold: what `benchmark/speed.py` measures with."""
