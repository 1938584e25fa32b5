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
    TextColumn,
    TimeRemainingColumn,
)

QUIET_SECONDS = 5.0
"""Seconds between lines where standard error is no terminal."""


class TokenProgress:
    """Shows how far a text is read.

    On a terminal it is a bar; elsewhere (a log) a line every few seconds.

    Args:
        memory: called now and then for a text on the memory in use.

    Attributes:
        done: tokens read so far.
    """

    def __init__(self, memory: Callable[[], str]) -> None:
        self.done = 0
        self._memory = memory
        self._console = Console(stderr=True)
        self._started = self._last_line = time.perf_counter()
        self._bar = Progress(
            TextColumn("reading"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[speed]:,.0f} tokens/s"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[memory]}"),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task("", total=None, speed=0.0, memory="")

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
            raise KeyboardInterrupt(f"stopped after {self.done:,} tokens")

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.perf_counter() - self._started

    def __call__(self, done: int, total: int) -> None:
        self.done = done
        speed = done / max(self.seconds, 1e-9)
        memory = self._memory()
        self._bar.update(self._task, completed=done, total=total, speed=speed, memory=memory)
        if not self._console.is_terminal and self._due():
            left = (total - done) / speed
            line = f"read {done:,} of {total:,} tokens, {speed:,.0f} tokens/s, {left:,.0f} s left, "
            self._console.print(line + memory, highlight=False, soft_wrap=True)

    def _due(self) -> bool:
        now = time.perf_counter()
        due = now - self._last_line >= QUIET_SECONDS
        if due:
            self._last_line = now
        return due
