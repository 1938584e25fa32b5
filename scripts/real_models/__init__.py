"""Real, small models from packages that ship their weights, for tests and measurements."""
