"""A progress bar on standard error: tokens, speed, time left, memory."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

from inf_llm.units import MIN_SECONDS

QUIET_SECONDS = 5.0
"""Seconds between two lines if standard error is not a terminal."""


def _columns(width: int, doing: str) -> list[ProgressColumn]:
    """Return the bar, and the other columns that fit a terminal of this width."""
    wanted: list[tuple[int, ProgressColumn]] = [
        (len(doing) + 1, TextColumn(doing)),
        (25, MofNCompleteColumn()),
        (18, TextColumn("{task.fields[speed]}")),
        (8, TimeRemainingColumn()),
        (34, TextColumn("{task.fields[memory]}")),
    ]
    room, columns = width - 8, []
    for needed, column in wanted:
        if needed <= room:
            room -= needed
            columns.append(column)
    bar = BarColumn(bar_width=max(4, min(24, 8 + room)))
    return [*columns[:1], bar, *columns[1:]]


class TokenProgress:
    """Shows the progress of reading a text.

    A terminal gets a bar; any other output, such as a log, gets a line every few seconds.

    Args:
        memory: called at each update for a description of the memory in use.
        unit: the unit that is counted.
        doing: the activity as a present and a past participle: ("reading", "read").

    Attributes:
        done: tokens read so far.
    """

    def __init__(
        self,
        memory: Callable[[], str],
        unit: str = "tokens",
        doing: tuple[str, str] = ("reading", "read"),
    ) -> None:
        self.done = 0
        self._memory, self._unit, self._doing = memory, unit, doing
        self._console = Console(stderr=True)
        self._started = self._last_line = time.perf_counter()
        self._first: tuple[int, float] | None = None
        """Number of tokens at the first update, and the time of this update."""
        self._bar = Progress(
            *_columns(self._console.width, doing[0]),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task("", total=None, speed="", memory="")

    def __enter__(self) -> TokenProgress:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()
        if kind is KeyboardInterrupt:
            raise KeyboardInterrupt(f"stopped after {self.done:,} {self._unit}")

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self._started

    def __call__(self, done: int, total: int) -> None:
        self.done = done
        speed, memory = self._speed(), self._memory()
        shown = f"{speed:,.{0 if speed > 10 else 1}f} {self._unit}/s" if speed else ""
        self._bar.update(self._task, completed=done, total=total, speed=shown, memory=memory)
        if not self._console.is_terminal and self._due():
            paced = f"{shown}, {(total - done) / speed:,.0f} s left, " if speed else ""
            line = f"{self._doing[1]} {done:,} of {total:,} {self._unit}, {paced}{memory}"
            self._console.print(line, highlight=False, soft_wrap=True)

    def _speed(self) -> float:
        """Return the tokens per second since the first update; 0 if too little time has passed.

        The first update is left out, since it also counts tokens that were in memory already.
        """
        now = time.perf_counter()
        if self._first is None:
            self._first = self.done, now
        tokens, began = self._first
        return (self.done - tokens) / (now - began) if now - began >= MIN_SECONDS else 0.0

    def _due(self) -> bool:
        now = time.perf_counter()
        due = now - self._last_line >= QUIET_SECONDS
        if due:
            self._last_line = now
        return due
