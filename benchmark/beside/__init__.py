"""One document, several programs that answer about it: what `benchmark/peers.py` measures with."""
