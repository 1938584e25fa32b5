"""Scores as Markdown and as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmark.compare import Difference
from benchmark.scores import BUCKETS, Mean, RunScores, TaskScore


def markdown(run: RunScores, record: Mapping[str, Any], notes: Sequence[str] = ()) -> str:
    """Return the tables of one run."""
    parts = [f"# Scores of {run.folder.name}", _table(_HEAD, [_row(t) for t in run.tasks.values()])]
    if buckets := [task for task in run.tasks.values() if task.buckets]:
        rows = [[t.task, *(_number(t.buckets.get(b)) for b in BUCKETS)] for t in buckets]
        parts.append(_table(["LongBench-E task", *BUCKETS], rows))
    if run.means:
        parts.append(_table(["mean", "score", "SE", "missing"], [_mean(m) for m in run.means]))
    parts += [f"- {note}" for note in [*notes, *_record_notes(record)]]
    return "\n\n".join(parts) + "\n"


def as_json(run: RunScores, record: Mapping[str, Any], notes: Sequence[str] = ()) -> dict[str, Any]:
    """Return the scores of one run as plain data, without the scores of single samples."""
    return {
        "folder": run.folder.name,
        "scores": {task.task: round(task.score, 2) for task in run.tasks.values()},
        "tasks": {task.task: _task_json(task) for task in run.tasks.values()},
        "means": [_mean_json(mean) for mean in run.means],
        "notes": list(notes),
        "run": dict(record),
    }


def compare_markdown(runs: Sequence[RunScores], rows: Mapping[str, Sequence[Difference]]) -> str:
    """Return the scores side by side, then the paired differences of each run to the first."""
    names = run_names(runs)
    tasks = list(dict.fromkeys(task for run in runs for task in run.tasks))
    scored = [[task, *(_cell(run.tasks.get(task)) for run in runs)] for task in tasks]
    parts = ["# Runs side by side", _table(["task", *names], scored)]
    shared = dict.fromkeys(mean.name for run in runs for mean in run.means)
    by_run = [{mean.name: mean for mean in run.means} for run in runs]
    means = [[name, *(_mean_cell(by.get(name)) for by in by_run)] for name in shared]
    if means:
        parts.append(_table(["mean", *names], means))
    for name, differences in rows.items():
        head = [f"{name} minus {names[0]}", "difference", "95 % interval", "n", "unpaired"]
        parts.append(_table(head, [_difference(d) for d in differences]))
    parts.append(
        "- Differences are paired by sample; intervals are percentile bootstraps over the samples "
        "that both runs have. `*` marks an interval without 0."
    )
    return "\n\n".join(parts) + "\n"


def compare_json(
    runs: Sequence[RunScores], rows: Mapping[str, Sequence[Difference]]
) -> dict[str, Any]:
    """Return the comparison of runs as plain data."""
    return {
        "runs": {name: as_json(run, {}) for name, run in zip(run_names(runs), runs, strict=True)},
        "differences": {
            name: [vars(difference) | {"sure": difference.sure} for difference in differences]
            for name, differences in rows.items()
        },
    }


def run_names(runs: Sequence[RunScores]) -> list[str]:
    """Return the names of the runs' folders, or their paths if two names are equal."""
    names = [run.folder.name for run in runs]
    return names if len(set(names)) == len(names) else [str(run.folder) for run in runs]


def write(folder: Path, stem: str, text: str, data: Mapping[str, Any]) -> str | None:
    """Write ``stem.md`` and ``stem.json``; return a message if the folder is not writable."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{stem}.md").write_text(text, encoding="utf-8")
        dumped = json.dumps(data, indent=2, ensure_ascii=False)
        (folder / f"{stem}.json").write_text(dumped + "\n", encoding="utf-8")
    except OSError as error:
        return f"{folder} cannot be written to ({error.strerror}): the tables are only shown"
    return None


_HEAD = ["task", "benchmark", "score", "SE", "n", "failed", "truncated"]


def _row(task: TaskScore) -> list[str]:
    counts = [str(task.n), str(task.failures), str(task.truncated)]
    return [task.task, task.benchmark, _number(task.score), _number(task.se), *counts]


def _mean(mean: Mean) -> list[str]:
    missing = ", ".join(mean.missing) or "-"
    if len(mean.missing) > 4:
        missing = f"{len(mean.missing)} of {len(mean.tasks)} tasks"
    return [mean.name, _number(mean.score), _number(mean.se), missing]


def _difference(row: Difference) -> list[str]:
    between = "-"
    if row.low is not None and row.high is not None:
        between = f"{row.low:+.2f} to {row.high:+.2f}{' *' if row.sure else ''}"
    value = "-" if row.difference is None else f"{row.difference:+.2f}"
    return [row.task, value, between, str(row.n), str(row.unpaired)]


def _cell(task: TaskScore | None) -> str:
    if task is None:
        return "-"
    return f"{task.score:.2f}" + ("" if task.se is None else f" ± {task.se:.2f}")


def _mean_cell(mean: Mean | None) -> str:
    return "-" if mean is None or mean.score is None else f"{mean.score:.2f}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in [head, *rows]]
    lines.insert(1, "|" + "|".join(["---"] + ["---:"] * (len(head) - 1)) + "|")
    return "\n".join(lines)


def _task_json(task: TaskScore) -> dict[str, Any]:
    return {key: value for key, value in vars(task).items() if key not in ("by_id", "task")}


def _mean_json(mean: Mean) -> dict[str, Any]:
    return vars(mean) | {"tasks": list(mean.tasks), "missing": list(mean.missing)}


def _record_notes(record: Mapping[str, Any]) -> list[str]:
    notes, rules = [], record.get("rules")
    if isinstance(rules, Mapping):
        notes.append("Prompt rules: " + ", ".join(f"{k} = {v}" for k, v in rules.items()))
    if "machine" in record:
        notes.append(f"Predicted on {record['machine']}.")
    return notes
