"""Plot of time and memory against length, one line per attention type."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmark.timing.report import Row
from inf_llm.optional import drawn
from inf_llm.units import short

_PANELS = (
    ("prefill_tail_us_tok", "prefill, µs per token in the last tenth"),
    ("decode_ms", "decode, ms per token"),
    ("device_kv_bytes", "keys and values on the device, bytes"),
)


def draw(rows: Sequence[Row], path: Path) -> None:
    """Write the plot to a file whose suffix gives the format."""
    size = 5 * len(_PANELS), 4.2
    with drawn("--plot", path, len(_PANELS), figsize=size, layout="constrained") as (_, panels):
        lengths = sorted({row["length"] for row in rows})
        for axes, (name, title) in zip(panels, _PANELS, strict=True):
            for kind in dict.fromkeys(row["type"] for row in rows):
                selected = [row for row in rows if row["type"] == kind and row[name] is not None]
                xs, ys = [row["length"] for row in selected], [row[name] for row in selected]
                (line,) = axes.plot(xs, ys, marker="o", label=kind)
                if selected and f"{name}_min" in selected[0]:
                    low, high = (
                        [row[f"{name}_{end}"] for row in selected] for end in ("min", "max")
                    )
                    axes.fill_between(xs, low, high, color=line.get_color(), alpha=0.12)
            axes.set_xscale("log", base=2)
            axes.set_yscale("log")
            axes.set_xticks(lengths, [short(n) for n in lengths])
            axes.set_xlabel("tokens")
            axes.set_title(title)
        panels[0].legend()
