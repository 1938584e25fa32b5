"""Discrete-event simulation of several servers (replicas) that share one disk."""
