"""Programs that answer questions about the same document, measured by `benchmark/peers.py`."""
