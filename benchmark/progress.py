"""Progress of a run: a bar for each task and one for all tasks; predictions if requested."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from benchmark.record import rows_done

_ALL = "\0all"


class Progress:
    """Progress bars on standard error, so that standard output contains only tables.

    Args:
        show: whether to show the bars.
        verbose: whether to print the prediction and the answer of each sample.
    """

    def __init__(self, show: bool = True, verbose: bool = False) -> None:
        self._console = Console(stderr=True)
        self._verbose = verbose
        self._bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[failed]}"),
            TimeRemainingColumn(),
            console=self._console,
            disable=not show,
        )
        self._ids: dict[str, Any] = {}
        self._failed = 0

    @classmethod
    def silent(cls) -> Progress:
        """Return a progress display that shows no bars."""
        return cls(show=False)

    def __enter__(self) -> Progress:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def start(self, totals: Mapping[str, int], done: Mapping[str, int]) -> None:
        """Add the bars, given the number of samples per task and of those already done."""
        for name, n in totals.items():
            self._add(name, name, n, done[name])
        if len(totals) > 1:
            self._add(_ALL, "all tasks", sum(totals.values()), sum(done.values()))

    def _add(self, key: str, title: str, total: int, done: int) -> None:
        self._ids[key] = self._bars.add_task(title, total=total, completed=done, failed="")

    def row(self, row: Mapping[str, Any]) -> None:
        """Count one more row, and print its error or, if verbose, its prediction."""
        if "error" in row:
            self._failed += 1
            self._console.print(escape(f"{row['dataset']} {row['id']} failed: {row['error']}"))
        failed = f"{self._failed} failed" if self._failed else ""
        for key in (row["dataset"], _ALL):
            if key in self._ids:
                self._bars.update(self._ids[key], advance=1, failed=failed)
        if self._verbose:
            self._console.print(escape(f"{row['dataset']} {row['id']}"), style="bold")
            self._console.print(escape(f"  said   {row['pred']!r}\n  right  {row['answers']!r}"))

    def watch(self, folder: Path, tasks: Sequence[str]) -> None:
        """Set the bars to the number of rows that other processes wrote."""
        counts = {task: len(rows_done(folder, task)) for task in tasks}
        for key, n in {**counts, _ALL: sum(counts.values())}.items():
            if key in self._ids:
                self._bars.update(self._ids[key], completed=n)
