"""Score a folder of predictions: per task, per length bucket, and means over lists of tasks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmark.metrics.longbench import length_bucket
from benchmark.rows import PredictionError, Row, read_rows, task_files
from benchmark.tasks import owner
from benchmark.tasks.base import Benchmark, ScoreOptions
from benchmark.tasks.infinitebench import INFLLM_7, SCRIPT_6
from benchmark.tasks.infinitebench import MAX_NEW_TOKENS as INFINITEBENCH_12
from benchmark.tasks.longbench import E_TASKS, ENGLISH_15, ENGLISH_16
from benchmark.tasks.longbench import MAX_NEW_TOKENS as LONGBENCH_21
from benchmark.tasks.ruler import TASKS_13 as RULER_13
from inf_llm.errors import MissingExtraError

BUCKETS = ("0-4k", "4-8k", "8k+")


@dataclass(frozen=True)
class TaskScore:
    """The score of one task, in percent.

    Attributes:
        task: name of the task.
        benchmark: name of the task's benchmark.
        score: mean score; a failed sample counts 0.
        n: number of samples, including failed ones.
        se: standard error of the mean; None for a single sample.
        failures: number of samples with an error.
        truncated: number of samples whose prompt was cut to the token budget.
        buckets: mean score by length bucket, for LongBench-E.
        by_id: score of each sample by id.
    """

    task: str
    benchmark: str
    score: float
    n: int
    se: float | None
    failures: int
    truncated: int
    buckets: Mapping[str, float] = field(default_factory=dict)
    by_id: Mapping[str, float] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Mean:
    """A mean over a list of tasks; `score` is None if some of the tasks are missing."""

    name: str
    tasks: tuple[str, ...]
    score: float | None
    se: float | None
    missing: tuple[str, ...]


@dataclass(frozen=True)
class RunScores:
    """All scores of one folder; `empty` are the tasks whose files have no rows."""

    folder: Path
    tasks: Mapping[str, TaskScore]
    means: Sequence[Mean]
    empty: tuple[str, ...] = ()


def score_folder(folder: Path, options: ScoreOptions | None = None) -> RunScores:
    """Score all prediction files of a folder.

    Raises:
        PredictionError: the folder or a file in it is not readable as predictions.
        SettingsError: the name of a file is not that of a known task.
    """
    options = options or ScoreOptions()
    files = task_files(folder)
    for task in files:
        owner(task)
    rows = {task: read_rows(paths) for task, paths in files.items()}
    empty = tuple(task for task, read in rows.items() if not read)
    tasks = {task: score_task(task, read, options) for task, read in rows.items() if read}
    return RunScores(folder, tasks, means(tasks), empty)


def score_task(task: str, rows: Sequence[Row], options: ScoreOptions) -> TaskScore:
    """Return the score of one task from its rows."""
    benchmark = owner(task)
    by_id = {
        row.id: 0.0 if row.error is not None else 100 * _score(benchmark, task, row, options)
        for row in rows
    }
    values = list(by_id.values())
    mean, se = mean_and_error(values)
    lengths = {row.id: row.length for row in rows}
    return TaskScore(
        task=task,
        benchmark=benchmark.name,
        score=mean,
        n=len(values),
        se=se,
        failures=sum(row.error is not None for row in rows),
        truncated=sum(bool(row.fields.get("truncated_from")) for row in rows),
        buckets=_buckets(by_id, lengths) if task.endswith("_e") else {},
        by_id=by_id,
    )


def _score(benchmark: Benchmark, task: str, row: Row, options: ScoreOptions) -> float:
    """Return the score of one row.

    Raises:
        PredictionError: the answers have the wrong form; the message names the row.
    """
    try:
        return benchmark.score(task, row, options)
    except MissingExtraError:
        raise
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        label = repr(row.answers)
        shown = label if len(label) <= 80 else f"{label[:80]}..."
        raise PredictionError(
            f"{task}, row with id {row.id!r}: its answers {shown} are not of the form that the "
            f"task takes ({error})"
        ) from error


def mean_and_error(values: Sequence[float]) -> tuple[float, float | None]:
    """Return the mean and its standard error (sample deviation over root n; None for n < 2)."""
    n = len(values)
    if n == 0:
        return math.nan, None
    mean = math.fsum(values) / n
    if n == 1:
        return mean, None
    variance = math.fsum((value - mean) ** 2 for value in values) / (n - 1)
    return mean, math.sqrt(variance / n)


def means(tasks: Mapping[str, TaskScore]) -> list[Mean]:
    """Return the means whose lists contain at least one of the scored tasks."""
    found = [_mean(name, listed, tasks) for name, listed in _lists(tasks).items()]
    return [mean for mean in found if len(mean.missing) < len(mean.tasks)]


def _lists(tasks: Mapping[str, TaskScore]) -> dict[str, tuple[str, ...]]:
    lists = {
        "LongBench, 15 tasks (English and code, without passage_count)": ENGLISH_15,
        "LongBench, 16 tasks (English and code)": ENGLISH_16,
        "LongBench, all 21 tasks": tuple(LONGBENCH_21),
        "LongBench-E, 13 tasks": tuple(f"{task}_e" for task in E_TASKS),
        "InfiniteBench, 6 tasks (InfLLM's script, EM-LLM's table)": SCRIPT_6,
        "InfiniteBench, 7 tasks (InfLLM's table)": INFLLM_7,
        "InfiniteBench, all 12 tasks": tuple(INFINITEBENCH_12),
    }
    lengths = sorted(
        {task.partition("@")[2] for task in tasks if task.partition("@")[0] in RULER_13},
        key=lambda text: (len(text), text),
    )
    for length in lengths:
        lists[f"RULER, 13 tasks at {length}"] = tuple(f"{task}@{length}" for task in RULER_13)
    return lists


def _mean(name: str, listed: tuple[str, ...], tasks: Mapping[str, TaskScore]) -> Mean:
    missing = tuple(task for task in listed if task not in tasks)
    if missing:
        return Mean(name, listed, None, None, missing)
    scored = [tasks[task] for task in listed]
    score = math.fsum(_official(task) for task in scored) / len(scored)
    errors = [task.se for task in scored if task.se is not None]
    se = None
    if len(errors) == len(scored):  # tasks are independent samples, each with the same weight
        se = math.sqrt(math.fsum(error**2 for error in errors)) / len(errors)
    return Mean(name, listed, score, se, ())


def _official(task: TaskScore) -> float:
    """Return a task's value in a mean: for LongBench-E the mean of its buckets, else its score."""
    if not task.buckets:
        return task.score
    return math.fsum(task.buckets.values()) / len(task.buckets)


def _buckets(by_id: Mapping[str, float], lengths: Mapping[str, int | None]) -> dict[str, float]:
    grouped: dict[str, list[float]] = {bucket: [] for bucket in BUCKETS}
    for key, score in by_id.items():
        length = lengths[key]
        if length is None:
            continue
        if not isinstance(length, (int, float)) or not math.isfinite(length):
            raise PredictionError(f"the row with id {key!r} has length {length!r}: not a number")
        grouped[length_bucket(int(length))].append(score)
    return {bucket: math.fsum(v) / len(v) for bucket, v in grouped.items() if v}
