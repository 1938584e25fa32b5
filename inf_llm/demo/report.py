"""The demo's table and heat maps, for a terminal and as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from inf_llm.demo.trial import Trial
from inf_llm.optional import drawn
from inf_llm.processor import machine
from inf_llm.units import short

_DEPTH_BANDS = 5
_SHADES = ((0.95, "green3"), (0.6, "yellow3"), (0.3, "dark_orange"), (0.0, "red3"))
_MEGABYTE = 1e6


def table(trials: Sequence[Trial]) -> Table:
    """Make a table with one row per type, length and task."""
    made = Table(
        title="needles found; KV MB is on the device, per haystack",
        title_justify="left",
        title_style="bold",
        caption=machine(),
        caption_justify="left",
    )
    for name in ("type", "length", "task"):
        made.add_column(name, no_wrap=True)
    for name in ("accuracy", "n", "seconds", "tokens/s", "KV MB"):
        made.add_column(name, justify="right", no_wrap=True)
    for i, trial in enumerate(trials):
        if i and trial.length != trials[i - 1].length:
            made.add_section()
        made.add_row(
            trial.type,
            short(trial.length),
            trial.task,
            Text(f"{trial.accuracy:.0%}", style=_shade(trial.accuracy)),
            str(trial.n),
            f"{trial.seconds:.1f}",
            f"{trial.tokens_per_second:,.0f}",
            f"{trial.device_kv_bytes / _MEGABYTE:.1f}",
        )
    return made


def heat_maps(trials: Sequence[Trial]) -> Table:
    """Make a table of the share of needles found, by type, length and band of depth."""
    lengths = sorted({trial.length for trial in trials})
    made = Table(title="found by depth of the needle", title_justify="left", title_style="bold")
    made.add_column("type", no_wrap=True)
    made.add_column("length", no_wrap=True)
    for band in range(_DEPTH_BANDS):
        low, high = band / _DEPTH_BANDS, (band + 1) / _DEPTH_BANDS
        made.add_column(f"{low:.0%}-{high:.0%}", justify="right", no_wrap=True)
    for name in dict.fromkeys(trial.type for trial in trials):
        for length in lengths:
            shares = [found_in_band(trials, name, length, band) for band in range(_DEPTH_BANDS)]
            if any(share is not None for share in shares):
                made.add_row(name, short(length), *map(_cell, shares))
        made.add_section()
    return made


def _cell(share: float | None) -> Text:
    if share is None:
        return Text("-", style="dim")
    return Text(f"{share:.0%}", style=f"bold {_shade(share)}")


def found_in_band(trials: Sequence[Trial], name: str, length: int, band: int) -> float | None:
    """Return the share of needles found in a band of depth, over all tasks; None without any."""
    hits = [
        hit
        for trial in trials
        if trial.type == name and trial.length == length
        for depth, hit in zip(trial.depths, trial.found, strict=True)
        if min(int(depth * _DEPTH_BANDS), _DEPTH_BANDS - 1) == band
    ]
    return sum(hits) / len(hits) if hits else None


def _shade(share: float) -> str:
    return next(colour for least, colour in _SHADES if share >= least)


def plot(trials: Sequence[Trial], path: Path) -> None:
    """Draw the heat maps to a file, one panel per type."""
    types = list(dict.fromkeys(trial.type for trial in trials))
    lengths = sorted({trial.length for trial in trials})
    size = 1.2 + 0.55 * len(lengths) * len(types) + 1.1 * len(types), 3.2
    how: dict[str, Any] = {"figsize": size, "sharey": True, "layout": "constrained", "dpi": 160}
    with drawn("--plot", path, len(types), **how) as (figure, axes):
        shown: Any = None
        for axis, name in zip(axes, types, strict=True):
            grid = [
                [_number(found_in_band(trials, name, length, band)) for length in lengths]
                for band in range(_DEPTH_BANDS)
            ]
            shown = _panel(axis, name, grid, lengths)
        axes[0].set_ylabel("depth of the needle")
        figure.colorbar(shown, ax=axes.tolist(), label="share found", shrink=0.9)


def _number(share: float | None) -> float:
    return float("nan") if share is None else share


def _panel(axis: Any, name: str, grid: list[list[float]], lengths: Sequence[int]) -> Any:
    """Draw one type: a cell per length and band of depth, grey where nothing was run."""
    axis.set_facecolor("0.88")
    shown = axis.imshow(grid, vmin=0, vmax=1, cmap="viridis", aspect="auto")
    axis.set_title(name)
    axis.set_xlabel("length in tokens")
    axis.set_xticks(range(len(lengths)), [short(length) for length in lengths])
    bands = [f"{band / _DEPTH_BANDS:.0%}-{(band + 1) / _DEPTH_BANDS:.0%}" for band in range(5)]
    axis.set_yticks(range(_DEPTH_BANDS), bands)
    for y, row in enumerate(grid):
        for x, share in enumerate(row):
            if share == share:  # not NaN
                colour = "black" if share > 0.6 else "white"
                axis.text(x, y, f"{share:.0%}", ha="center", va="center", color=colour, fontsize=8)
    return shown
