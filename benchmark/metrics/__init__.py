"""Scores of one prediction, each by its benchmark's own definition."""
