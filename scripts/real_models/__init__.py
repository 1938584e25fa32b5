"""Real, small models out of packages that ship their weights, for tests and measurements."""
