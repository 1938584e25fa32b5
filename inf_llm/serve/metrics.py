"""Counts and durations for Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Histogram,
    Metric,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)

Values = Mapping[str, tuple[str, Callable[[], float]]]
"""Description and reading function of each value, by name."""


class Metrics:
    """Counters and histograms since the server started.

    Args:
        values: further values; names that end in "_total" are counters, all others are gauges.
    """

    media_type = CONTENT_TYPE_LATEST

    def __init__(self, values: Values) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(_Read(values))
        self.requests = Counter(
            "inf_llm_requests",
            "Requests answered, by route and status.",
            ("route", "status"),
            registry=self.registry,
        )
        self.prompt_tokens = self._counter("prompt_tokens", "Prompt tokens, cached ones included.")
        self.cached_tokens = self._counter("cached_tokens", "Prompt tokens found in memory.")
        self.generated_tokens = self._counter("generated_tokens", "Tokens generated.")
        self.first_token = self._histogram(
            "first_token_seconds", "From the start of a job to the first token of its answer."
        )
        self.request = self._histogram(
            "request_seconds", "From a request that has arrived to the end of its answer."
        )

    def text(self) -> bytes:
        """Return all metrics in the text format of Prometheus."""
        return generate_latest(self.registry)

    def _counter(self, name: str, text: str) -> Counter:
        return Counter(f"inf_llm_{name}", text, registry=self.registry)

    def _histogram(self, name: str, text: str) -> Histogram:
        return Histogram(f"inf_llm_{name}", text, registry=self.registry, buckets=_BUCKETS)


class _Read(Collector):
    """Values that are read from other objects at each collection."""

    def __init__(self, values: Values) -> None:
        self._values = values

    def collect(self) -> Iterable[Metric]:
        """See `Collector`."""
        for name, (text, read) in self._values.items():
            family = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
            yield family(f"inf_llm_{name}", text, read())
