"""Plot of figures against the length, one line for each model and subject."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from benchmark.beside.subjects import SUBJECTS
from benchmark.beside.table import Row
from inf_llm.optional import drawn
from inf_llm.units import short

_PANELS = (
    ("first", 1.0, "first token of a document, s"),
    ("second", 1.0, "first token of a second question, s"),
    ("decode", 1e3, "decode, ms a token"),
    ("peak", 1e-6, "peak memory, MB"),
)
_MARKS = "osD^v*"


def draw(rows: Sequence[Row], path: Path) -> None:
    """Write the plot to a file whose suffix gives the format."""
    models = list(dict.fromkeys(row["model"] for row in rows))
    names = [name for name in SUBJECTS if any(row["subject"] == name for row in rows)]
    lengths = sorted({row["tokens"] for row in rows})
    size = 4.6 * len(_PANELS), 4.2
    with drawn("--plot", path, len(_PANELS), figsize=size, layout="constrained") as (_, panels):
        for axes, (figure, scale, title) in zip(panels, _PANELS, strict=True):
            for color, name in enumerate(names):
                for model, mark in zip(models, _MARKS, strict=False):
                    points = _points(rows, model, name, figure, scale)
                    if points:
                        style = {"marker": mark, "color": f"C{color}", "label": f"{model} {name}"}
                        axes.plot(*zip(*points, strict=True), **style)
            axes.set_xscale("log", base=2)
            axes.set_yscale("log")
            axes.set_xticks(lengths, [short(n) for n in lengths])
            axes.set_xlabel("tokens")
            axes.set_title(title)
        panels[0].legend(fontsize="small")


def _points(
    rows: Sequence[Row], model: str, name: str, figure: str, scale: float
) -> list[tuple[int, float]]:
    """Return points (tokens, median over documents and tasks)."""
    values: dict[int, list[float]] = {}
    for row in rows:
        if (row["model"], row["subject"]) == (model, name) and row.get(figure) is not None:
            values.setdefault(row["tokens"], []).append(scale * row[figure])
    return [(tokens, statistics.median(values[tokens])) for tokens in sorted(values)]
