"""Rows, tables and ratios of measured figures."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
import platform
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmark import process_memory
from benchmark.timing.walk import Measured, Samples
from inf_llm.processor import machine
from inf_llm.units import short

Row = dict[str, Any]


def rows(measured: Measured) -> list[Row]:
    """Return one row per type and length; a time is given as median, minimum and maximum."""
    return [_row(name, length, samples) for (name, length), samples in measured.items()]


def _row(name: str, length: int, samples: Samples) -> Row:
    speeds = [length / seconds for seconds in samples.prefill]
    return {
        "type": name,
        "length": length,
        **_spread("prefill_tok_s", speeds, 1),
        **_spread("prefill_tail_us_tok", samples.tail, 1e6),
        **_spread("decode_ms", samples.decode, 1e3),
        "decode_steps": len(samples.decode),
        **samples.held,
        "filled_with_random": samples.filled,
    }


def _spread(name: str, values: Sequence[float], factor: float) -> Row:
    if not values:
        return {name: None}
    return {
        name: statistics.median(values) * factor,
        f"{name}_min": min(values) * factor,
        f"{name}_max": max(values) * factor,
    }


def table(rows: Sequence[Row], measured_on: str) -> str:
    """Return all rows as a Markdown table, and a note about the machine."""
    head = (
        "| type | length | prefill tok/s | last tenth µs/tok | decode ms | device KV | host KV |\n"
        "|---|---:|---:|---:|---:|---:|---:|"
    )
    lines = [
        f"| {row['type']} | {short(row['length'])}{' †' if row['filled_with_random'] else ''} "
        f"| {_cell(row, 'prefill_tok_s', 0)} | {_cell(row, 'prefill_tail_us_tok', 0)} "
        f"| {_cell(row, 'decode_ms', 2)} | {_mib(row['device_kv_bytes'])} "
        f"| {_mib(row['host_kv_bytes'])} |"
        for row in rows
    ]
    note = f"{measured_on}, {torch.get_num_threads()} threads. Medians (least to greatest)."
    if any(row["filled_with_random"] for row in rows):
        note += " † the cache was filled with random keys and values instead of reading a prompt."
    return "\n".join((head, *lines, "", note))


def _cell(row: Row, name: str, digits: int) -> str:
    value = row[name]
    if value is None:
        return ""
    low, high = row[f"{name}_min"], row[f"{name}_max"]
    spread = "" if low == high else f" ({low:.{digits}f} to {high:.{digits}f})"
    return f"{value:.{digits}f}{spread}"


def _mib(count: int) -> str:
    return f"{count / 2**20:.1f} MiB"


def environment(device: str) -> Row:
    """Return the environment of the figures: hardware, versions, command, load and peak memory."""
    packages = ("inf-llm", "torch", "transformers", "triton", "flash-attn")
    found: dict[str, str | None] = {}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    found["python"] = platform.python_version()
    return {
        "hardware": machine(device),
        "threads": torch.get_num_threads(),
        "omp_wait_policy": os.environ.get("OMP_WAIT_POLICY"),
        "system": platform.system(),
        "versions": found,
        "command": " ".join(["python", *_own_arguments()]),
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "peak_rss_bytes": process_memory.peak(),
    }


def _own_arguments() -> list[str]:
    here = Path(sys.argv[0])
    return [f"benchmark/{here.name}" if here.name == "speed.py" else here.name, *sys.argv[1:]]


@dataclasses.dataclass(frozen=True)
class Ratio:
    """A ratio of two figures, with its limit.

    Attributes:
        text: description of the two figures.
        value: the ratio of medians.
        best: the ratio of the best times, which other work on the machine disturbs least.
        limit: the limit of `value`.
        at_least: whether the ratio must be at least the limit; otherwise, at most.
    """

    text: str
    value: float
    best: float
    limit: float
    at_least: bool

    @property
    def met(self) -> bool:
        """Whether the ratio meets its limit."""
        return self.value >= self.limit if self.at_least else self.value <= self.limit

    def __str__(self) -> str:
        sign = "at least" if self.at_least else "at most"
        verdict = "met" if self.met else "MISSED"
        found = f"{self.value:.2f} (of the best times: {self.best:.2f})"
        return f"{verdict}: {self.text}: {found}; wanted: {sign} {self.limit:g}"
