"""Checks that need a GPU, on the first CUDA device; see `__main__`."""
