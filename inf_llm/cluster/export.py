"""A replica's metrics, as Ray exports them on its node."""

from __future__ import annotations

from prometheus_client import CollectorRegistry
from ray.util.metrics import Gauge


class Exported:
    """Counters and gauges of a registry under the same names, which Ray begins with ``ray_`` and
    tells apart by the replica.

    Args:
        registry: of `inf_llm.serve.metrics`.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._gauges: dict[str, Gauge] = {}

    def update(self) -> None:
        """Take the values of now."""
        for family in self._registry.collect():
            for sample in family.samples:
                if family.type in ("gauge", "counter") and not sample.name.endswith("_created"):
                    gauge = self._gauge(sample.name, family.documentation, tuple(sample.labels))
                    gauge.set(sample.value, tags=dict(sample.labels))

    def _gauge(self, name: str, text: str, labels: tuple[str, ...]) -> Gauge:
        if name not in self._gauges:
            self._gauges[name] = Gauge(name, description=text, tag_keys=labels)
        return self._gauges[name]
