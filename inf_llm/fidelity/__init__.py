"""Measure how closely a memory reproduces full attention, on the user's own model and texts."""
