"""Plot of figures against the number of replicas, one line per policy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmark.simulation.figures import Row
from inf_llm.optional import drawn

_PANELS = (
    ("p95", "first token, p95, s", "log"),
    ("memory", "share of questions whose document is in memory", "linear"),
    ("busy", "share of time in which a replica works", "linear"),
)


def draw(rows: Sequence[Row], path: Path) -> None:
    """Write the plot to a file whose suffix gives the format; hollow marks mean saturation."""
    size = 5 * len(_PANELS), 4.2
    with drawn("--draw", path, len(_PANELS), figsize=size, layout="constrained") as (_, panels):
        for axes, (name, title, scale) in zip(panels, _PANELS, strict=True):
            for policy in dict.fromkeys(row["policy"] for row in rows):
                selected = [row for row in rows if row["policy"] == policy]
                places, values = (
                    [row["replicas"] for row in selected],
                    [row[name] for row in selected],
                )
                (line,) = axes.plot(places, values, label=policy)
                colour = line.get_color()
                fills = ["white" if row["saturates"] else colour for row in selected]
                axes.scatter(places, values, c=fills, edgecolors=colour, zorder=3)
            axes.set_xscale("log", base=2)
            axes.set_yscale(scale)
            axes.set_xticks(*_ticks(rows))
            axes.set_xlabel("replicas (hollow: saturated)")
            axes.set_title(title)
        panels[0].legend()


def _ticks(rows: Sequence[Row]) -> tuple[list[int], list[str]]:
    counts = sorted({row["replicas"] for row in rows})
    return counts, [str(count) for count in counts]
