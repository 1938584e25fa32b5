"""Bar chart of scores with standard errors: one group of bars per task, one colour per run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmark.report import run_names
from benchmark.scores import RunScores
from inf_llm.optional import drawn


def draw(runs: Sequence[RunScores], path: Path) -> None:
    """Write the chart to a file whose suffix gives the format; see `drawn`."""
    tasks = list(dict.fromkeys(task for run in runs for task in run.tasks))
    size = max(6.0, 0.5 * len(tasks) * len(runs) + 2), 4.5
    with drawn("--plot", path, figsize=size, layout="constrained") as (_, (axes,)):
        width = 0.8 / len(runs)
        for i, (name, run) in enumerate(zip(run_names(runs), runs, strict=True)):
            places = [at + (i - (len(runs) - 1) / 2) * width for at in range(len(tasks))]
            scored = [run.tasks.get(task) for task in tasks]
            heights = [0.0 if task is None else task.score for task in scored]
            errors = [0.0 if task is None else task.se or 0.0 for task in scored]
            axes.bar(places, heights, width, yerr=errors, capsize=2, label=name)
        axes.set_xticks(range(len(tasks)), tasks, rotation=45, ha="right")
        axes.set_ylabel("score (%), standard error")
        axes.set_ylim(bottom=0)
        axes.legend()
