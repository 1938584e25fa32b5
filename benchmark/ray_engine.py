"""Spread samples over a Ray cluster; the driver writes the rows.

The driver loads the data and the tokenizer, and gives each actor one document with its questions at
a time. Each row comes back as soon as it is ready, and goes to the same file as without Ray.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

from benchmark.engine import load_tokenizer, make_engine
from benchmark.progress import Progress
from benchmark.record import RowFile, task_path
from benchmark.runner import complete, open_jobs, prepare, start
from benchmark.settings import RunOptions
from benchmark.worker import Job, Worker
from inf_llm.cluster.tasks import Failure, Work, on_ray
from inf_llm.errors import InfLLMError


def make_rows(options: RunOptions) -> Work[Job]:
    """Load a model inside an actor; return a function that yields the rows of a job.

    The function skips the first `given` questions of a job, which another actor has answered.
    """
    worker = Worker(make_engine(options.engine, options.config), options.rules)

    def rows(job: Job, given: int) -> Iterator[dict[str, Any]]:
        return worker.rows(replace(job, instances=job.instances[given:]))

    return rows


def run_on_ray(options: RunOptions, progress: Progress, tokenizer: Any = None) -> None:
    """Run all tasks on the cluster that `RAY_ADDRESS` names, or on this machine.

    Raises:
        MissingExtraError: ray is not installed.
        InfLLMError: a document failed, for example because two actors died while working on it.
            The rows of the other documents are written.
    """
    tasks = prepare(options, tokenizer or load_tokenizer(options.config))
    start(options, tasks, progress)
    failed = []
    with ExitStack() as files:
        open_files = {
            task.name: files.enter_context(RowFile(task_path(options.output, task.name)))
            for task in tasks
        }
        jobs = (job for task in tasks for job in open_jobs(options, task))
        for job, row in on_ray(jobs, partial(make_rows, options)):
            if isinstance(row, Failure):
                failed.append(f"{job.task} {job.instances[0].id}: {row.reason}")
            else:
                open_files[job.task].append(row)
                progress.row(row)
    if failed:
        raise InfLLMError("; ".join(failed))
    for task in tasks:
        complete(options, task)
