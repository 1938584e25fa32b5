"""The progress bar: what fits a terminal, and speeds of tokens that were really read."""

from __future__ import annotations

import time

import pytest
from rich.console import Console
from rich.progress import BarColumn

from inf_llm.cli import progress
from inf_llm.cli.progress import TokenProgress


@pytest.mark.parametrize("width", [20, 40, 60, 80, 120, 200])
def test_every_terminal_shows_the_bar_on_one_line(
    width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = Console(width=width, force_terminal=True, color_system=None, record=True, stderr=True)
    monkeypatch.setattr(progress, "Console", lambda stderr: screen)
    shown = TokenProgress(lambda: "999.9 MB device, 999.9 MB host")
    shown(400_000, 1_000_000)
    shown._first = 0, time.perf_counter() - 10
    shown(500_000, 1_000_000)
    bar = shown._bar
    assert any(isinstance(column, BarColumn) for column in bar.columns)
    (line,) = screen.render_lines(bar.make_tasks_table(bar.tasks), pad=False)
    text = "".join(segment.text for segment in line)
    assert text.startswith("reading ━")
    assert "…" not in text
    assert ("tokens/s" in text) == (width >= 40)
    assert ("999.9 MB host" in text) == (width >= 120)


def test_what_was_in_memory_has_no_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    shown = TokenProgress(lambda: "")
    speeds = []
    for at, done in ((100.1, 57_660), (100.3, 57_688), (102.1, 59_660)):
        now[0] = at
        shown(done, 60_000)
        speeds.append(shown._speed())
    assert speeds == [0.0, 0.0, pytest.approx(1000)]
