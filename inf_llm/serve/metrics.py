"""Counts and durations, in the text form that Prometheus reads."""

from __future__ import annotations

import threading
from collections.abc import Callable

_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)

_HELP = {
    "requests_total": ("counter", "Requests answered, by route and status."),
    "prompt_tokens_total": ("counter", "Prompt tokens, cached ones included."),
    "cached_tokens_total": ("counter", "Prompt tokens that were in memory already."),
    "generated_tokens_total": ("counter", "Tokens generated."),
    "cancelled_total": ("counter", "Jobs whose client went away."),
    "first_token_seconds": ("histogram", "From a request to the first token of its answer."),
    "request_seconds": ("histogram", "From a request to the end of its answer."),
}


class Metrics:
    """What happened so far. Values that are read when asked for are given as functions."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[tuple[str, str], float] = {}
        self._durations: dict[str, list[float]] = {
            name: [0.0] * (len(_BUCKETS) + 2)
            for name, (kind, _) in _HELP.items()
            if kind == "histogram"
        }
        self._read: dict[str, tuple[str, str, Callable[[], float]]] = {}

    def gauge(self, name: str, help_text: str, value: Callable[[], float]) -> None:
        """A value to read when asked."""
        self._read[name] = "gauge", help_text, value

    def counter(self, name: str, help_text: str, value: Callable[[], float]) -> None:
        """A count, which never falls, to read when asked."""
        self._read[name] = "counter", help_text, value

    def count(self, name: str, by: float = 1, labels: str = "") -> None:
        """Something happened `by` times."""
        with self._lock:
            key = name, labels
            self._counts[key] = self._counts.get(key, 0) + by

    def took(self, name: str, seconds: float) -> None:
        """Something took so long."""
        with self._lock:
            row = self._durations[name]
            for at, bound in enumerate(_BUCKETS):
                row[at] += seconds <= bound
            row[-2] += 1
            row[-1] += seconds

    def text(self) -> str:
        """All of it."""
        lines: list[str] = []
        with self._lock:
            for name, (kind, help_text) in _HELP.items():
                lines += _head(name, kind, help_text)
                lines += self._histogram(name) if kind == "histogram" else self._counter(name)
        for name, (kind, help_text, value) in self._read.items():
            lines += [*_head(name, kind, help_text), f"inf_llm_{name} {value():.15g}"]
        return "\n".join(lines) + "\n"

    def _counter(self, name: str) -> list[str]:
        rows = [(labels, value) for (other, labels), value in self._counts.items() if other == name]
        return [f"inf_llm_{name}{labels} {value:.15g}" for labels, value in rows or [("", 0)]]

    def _histogram(self, name: str) -> list[str]:
        row = self._durations[name]
        lines = [
            f'inf_llm_{name}_bucket{{le="{bound:g}"}} {row[at]:.0f}'
            for at, bound in enumerate(_BUCKETS)
        ]
        lines.append(f'inf_llm_{name}_bucket{{le="+Inf"}} {row[-2]:.0f}')
        return [*lines, f"inf_llm_{name}_sum {row[-1]:.6f}", f"inf_llm_{name}_count {row[-2]:.0f}"]


def _head(name: str, kind: str, help_text: str) -> list[str]:
    return [f"# HELP inf_llm_{name} {help_text}", f"# TYPE inf_llm_{name} {kind}"]
