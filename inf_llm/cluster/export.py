"""The metrics of a replica, exported by Ray on the replica's node."""

from __future__ import annotations

from prometheus_client import CollectorRegistry
from ray.util.metrics import Gauge


class Exported:
    """Ray gauges with the values of a registry's counters and gauges.

    They have the same names, with the prefix ``ray_`` that Ray adds. Ray tells the replicas apart.

    Args:
        registry: the registry of `inf_llm.serve.metrics`.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._gauges: dict[str, Gauge] = {}

    def update(self) -> None:
        """Copy the current values to Ray."""
        for family in self._registry.collect():
            for sample in family.samples:
                if family.type in ("gauge", "counter") and not sample.name.endswith("_created"):
                    gauge = self._gauge(sample.name, family.documentation, tuple(sample.labels))
                    gauge.set(sample.value, tags=dict(sample.labels))

    def _gauge(self, name: str, text: str, labels: tuple[str, ...]) -> Gauge:
        if name not in self._gauges:
            self._gauges[name] = Gauge(name, description=text, tag_keys=labels)
        return self._gauges[name]
