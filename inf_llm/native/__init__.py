"""The search of blocks in C, built where there is a compiler; everything works without."""
