"""Figures of a simulation run, and a table of them."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from benchmark.load.figures import percentile
from benchmark.simulation.run import Ran

Row = dict[str, Any]
_HEAD = (
    "replicas",
    "policy",
    "in memory",
    "from disk",
    "read anew",
    "texts read",
    "first token, p50 s",
    "p95 s",
    "busy",
    "load of the busiest",
    "saturates",
)


def figures(replicas: int, policy: str, ran: Ran) -> Row:
    """Return a row: shares of the counted requests by source, times to first token, utilisation.

    `load` is the work in seconds that arrives per second at the busiest replica. From 1 on, the
    queue of that replica grows without bound.
    """
    sources = [request.source for request in ran.counted]
    first = [request.first - request.arrived for request in ran.counted]
    load = max(ran.offered) / ran.seconds
    return {
        "replicas": replicas,
        "policy": policy,
        **{name: sources.count(name) / len(sources) for name in ("memory", "disk", "text")},
        "texts_read": ran.read,
        "mean": statistics.fmean(first),
        "p50": percentile(first, 0.5),
        "p95": percentile(first, 0.95),
        "busy": statistics.fmean(ran.busy) / ran.seconds,
        "load": load,
        "saturates": load >= 1,
    }


def table(rows: Sequence[Row]) -> str:
    """Return all rows as a Markdown table."""
    head = [f"| {' | '.join(_HEAD)} |", "|---:|---|" + "---:|" * 8 + "---|"]
    return "\n".join([*head, *map(_line, rows)])


def _line(row: Row) -> str:
    shares = [f"{row[name]:.1%}" for name in ("memory", "disk", "text")]
    seconds = [f"{row[name]:,.{1 if row[name] < 100 else 0}f}" for name in ("p50", "p95")]
    used = [f"{row['busy']:.0%}", f"{row['load']:.2f}"]
    cells = [row["replicas"], row["policy"], *shares, row["texts_read"], *seconds, *used]
    return f"| {' | '.join(map(str, cells))} | {'yes' if row['saturates'] else 'no'} |"
