"""The folder of a saved memory: manifest, segments and lock. It is independent of models."""
