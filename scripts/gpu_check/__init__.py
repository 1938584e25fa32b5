"""What a CPU cannot show, on the first CUDA device; see `__main__`."""
