"""Picture of the recalled share of a needle, by depth of the needle and by layer."""

from __future__ import annotations

import itertools
import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from inf_llm.fidelity.measure import PROSE_ROW
from inf_llm.optional import drawn

_BANDS = 5
BEST = "the best as many blocks could do"
Row = dict[str, Any]


def panels(rows: Sequence[Row]) -> dict[str, list[list[float]]]:
    """Return per rule the shares of the needle's mass that were recalled: bands by layers.

    A band is a range of depths. One more panel, taken from the first rule with recall, shows the
    best share that the same number of blocks could hold.
    """
    grids: dict[str, list[list[float]]] = {}
    rows = [row for row in rows if "recall" in row and row["question"] != PROSE_ROW]
    for rule in dict.fromkeys(row["rule"] for row in rows):
        of_rule = [row for row in rows if row["rule"] == rule and row["depth"] is not None]
        grids[rule] = _grid(of_rule, "needle_held")
        grids.setdefault(BEST, _grid(of_rule, "needle_best"))
    return {name: grids[name] for name in (*(n for n in grids if n != BEST), *grids) if grids[name]}


def _grid(rows: Sequence[Row], part: str) -> list[list[float]]:
    """Return the shares by band and layer; NaN where no needle stood."""
    layers = max((len(row["recall"][part]) for row in rows), default=0)
    deepest = max((row["depth"] for row in rows), default=1) or 1
    bands: list[list[Row]] = [[] for _ in range(_BANDS)]
    for row in rows:
        bands[min(int(row["depth"] / deepest * _BANDS), _BANDS - 1)].append(row)
    return [[_share(band, part, layer) for layer in range(layers)] for band in bands]


def _share(rows: Sequence[Row], part: str, layer: int) -> float:
    whole = sum(row["recall"]["needle"][layer] for row in rows)
    return sum(row["recall"][part][layer] for row in rows) / whole if whole else math.nan


def draw(rows: Sequence[Row], path: Path) -> bool:
    """Draw the panels to a file; return False if no rule has recall.

    Raises:
        MissingExtraError: matplotlib is not installed.
        SettingsError: the file cannot be written.
    """
    grids = panels(rows)
    if not grids:
        return False
    deepest = max(row["depth"] for row in rows if row["depth"] is not None)
    how: dict[str, Any] = {"sharey": True, "layout": "constrained"}
    with drawn("--out", path, len(grids), 140, figsize=(1 + 3.4 * len(grids), 2.9), **how) as (
        figure,
        axes,
    ):
        for axis, (name, grid) in zip(axes, grids.items(), strict=True):
            shown = axis.imshow(grid, vmin=0, vmax=1, cmap="viridis", aspect="auto")
            axis.set_title(textwrap.fill(name, 36), fontsize=9)
            axis.set_xlabel("layer with a memory")
            axis.xaxis.get_major_locator().set_params(integer=True)
            axis.set_facecolor("0.88")
        edges = [deepest * band / _BANDS for band in range(_BANDS + 1)]
        labels = [f"{low:.0%}-{high:.0%}" for low, high in itertools.pairwise(edges)]
        axes[0].set_yticks(range(_BANDS), labels)
        axes[0].set_ylabel("depth of the needle")
        figure.colorbar(shown, ax=axes.tolist(), label="share of its mass recalled", shrink=0.9)
    return True
