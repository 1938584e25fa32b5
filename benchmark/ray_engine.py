"""Samples spread over a Ray cluster: one actor a GPU (or a few CPUs), the driver writes the rows.

The driver loads data and tokenizer, and hands each actor one document with its questions at a
time; rows stream back as they are answered and go to the same file as without Ray.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

from benchmark.engine import load_tokenizer, make_engine
from benchmark.progress import Progress
from benchmark.record import RowFile, task_path
from benchmark.runner import complete, open_jobs, prepare, start
from benchmark.settings import RunOptions
from benchmark.worker import Job, Worker
from inf_llm.errors import InfLLMError
from inf_llm.optional import need


class RowSource:
    """What runs inside an actor: a model, and rows of the jobs that it is given."""

    def __init__(self, options: RunOptions) -> None:
        self.worker = Worker(make_engine(options.engine, options.config), options.rules)

    def rows(self, job: Job) -> Iterator[dict[str, Any]]:
        """The rows of one job, one by one."""
        yield from self.worker.rows(job)


def run_on_ray(options: RunOptions, progress: Progress, tokenizer: Any = None) -> None:
    """All tasks on the cluster that `RAY_ADDRESS` names, or on this machine.

    Raises:
        MissingExtraError: ray is not installed.
        InfLLMError: an actor died.
    """
    ray = need("ray", "--engine ray", extra="ray")
    tasks = prepare(options, tokenizer or load_tokenizer(options.config))
    start(options, tasks, progress)
    if not ray.is_initialized():
        ray.init(log_to_driver=False, logging_level="ERROR", runtime_env=_runtime())
    try:
        actors = _actors(ray, options)
        with ExitStack() as files:
            open_files = {
                task.name: files.enter_context(RowFile(task_path(options.output, task.name)))
                for task in tasks
            }
            jobs = iter([job for task in tasks for job in open_jobs(options, task)])
            for row in _streamed(ray, actors, jobs):
                open_files[row["dataset"]].append(row)
                progress.row(row)
    except ray.exceptions.RayError as error:
        raise InfLLMError(f"ray: {str(error).strip().splitlines()[-1]}") from error
    for task in tasks:
        complete(options, task)


def _runtime() -> dict[str, Any]:
    """Workers import this harness from where the driver did."""
    return {"env_vars": {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}}


def _actors(ray: Any, options: RunOptions) -> list[Any]:
    resources = ray.cluster_resources()
    gpus = int(resources.get("GPU", 0))
    n = gpus or max(1, int(resources.get("CPU", 1)) // 2)
    remote = ray.remote(num_gpus=1)(RowSource) if gpus else ray.remote(num_cpus=1)(RowSource)
    return [remote.remote(options) for _ in range(n)]


def _streamed(ray: Any, actors: list[Any], jobs: Iterator[Job]) -> Iterator[dict[str, Any]]:
    """Rows in the order they are ready; an actor that has finished a job gets the next."""
    streams: list[Any] = []
    held_by: dict[int, Any] = {}

    def give(actor: Any) -> None:
        job = next(jobs, None)
        if job is not None:
            stream = actor.rows.options(num_returns="streaming").remote(job)
            streams.append(stream)
            held_by[id(stream)] = actor

    for actor in actors:
        give(actor)
    while streams:
        # A stream is ready when its next row is, or when it has no more.
        ready, _ = ray.wait(streams, num_returns=1, fetch_local=False)
        stream = ready[0]
        try:
            yield ray.get(next(stream))
        except StopIteration:
            streams.remove(stream)
            give(held_by.pop(id(stream)))
