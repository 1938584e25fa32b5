"""Samples spread over a Ray cluster; the driver writes the rows.

The driver loads data and tokenizer, and hands each actor one document with its questions at a
time; rows stream back as they are answered and go to the same file as without Ray.
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
    """What runs inside an actor: a model, and rows of the jobs that it is given."""
    worker = Worker(make_engine(options.engine, options.config), options.rules)

    def rows(job: Job, given: int) -> Iterator[dict[str, Any]]:
        return worker.rows(replace(job, instances=job.instances[given:]))

    return rows


def run_on_ray(options: RunOptions, progress: Progress, tokenizer: Any = None) -> None:
    """All tasks on the cluster that `RAY_ADDRESS` names, or on this machine.

    Raises:
        MissingExtraError: ray is not installed.
        InfLLMError: two actors died of the same document; rows of the others are written.
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
