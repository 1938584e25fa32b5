"""Run tasks in this process or in one process per GPU, and write each row when it is ready."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from benchmark.engine import Engine, load_tokenizer, make_engine
from benchmark.progress import Progress
from benchmark.record import RowFile, claim, finish, rows_done, task_path
from benchmark.settings import LoadedTask, RunOptions, load_task
from benchmark.worker import Job, Worker, group
from inf_llm.errors import InfLLMError


def run(options: RunOptions, progress: Progress) -> None:
    """Run all tasks of one rank in this process.

    Raises:
        InfLLMError: the folder, a setting or a file of the benchmark cannot be used.
    """
    engine = make_engine(options.engine, options.config)
    tasks = prepare(options, engine.tokenizer)
    start(options, tasks, progress)
    for task in tasks:
        _run_task(options, task, engine, progress)
        if not complete(options, task) and options.world_size == 1:
            raise InfLLMError(
                f"{task.name} in {options.output} is not complete: another run has changed its "
                "rows meanwhile. Start again with the same arguments"
            )


def prepare(options: RunOptions, tokenizer: Any) -> list[LoadedTask]:
    """Load all tasks and claim the folder, before any computation."""
    tasks = [load_task(name, options, tokenizer) for name in options.tasks]
    records = {task.name: task.record for task in tasks}
    claim(options.output, options.same_within_folder(), records)
    return tasks


def start(options: RunOptions, tasks: Sequence[LoadedTask], progress: Progress) -> None:
    """Set the progress bars to the number of this rank's samples and of those already done."""
    totals = {t.name: sum(len(j.instances) for j in rank_jobs(options, t)) for t in tasks}
    left = {t.name: sum(len(j.instances) for j in open_jobs(options, t)) for t in tasks}
    progress.start(totals, {name: totals[name] - left[name] for name in totals})


def rank_jobs(options: RunOptions, task: LoadedTask) -> list[Job]:
    """Return this rank's jobs: whole documents, assigned to the ranks round-robin."""
    jobs = group(task.name, task.info, task.instances[: options.limit])
    return jobs[options.rank :: options.world_size]


def open_jobs(options: RunOptions, task: LoadedTask) -> Iterator[Job]:
    """Yield this rank's jobs, each with its unanswered questions only."""
    done = rows_done(options.output, task.name)
    if options.retry_failed:
        done = {key: row for key, row in done.items() if "error" not in row}
    for job in rank_jobs(options, task):
        questions = tuple(i for i in job.instances if i.id not in done)
        if questions:
            yield replace(job, instances=questions)


def complete(options: RunOptions, task: LoadedTask) -> bool:
    """Merge the task into one file if all its samples are done; return whether they are."""
    ids = [instance.id for instance in task.instances[: options.limit]]
    return not finish(options.output, task.name, ids)


def _run_task(options: RunOptions, task: LoadedTask, engine: Engine, progress: Progress) -> None:
    jobs = list(open_jobs(options, task))
    if not jobs:
        return
    worker = Worker(engine, options.rules)
    path = task_path(options.output, task.name, options.rank, options.world_size)
    with RowFile(path) as file:
        for job in jobs:
            for row in worker.rows(job):
                file.append(row)
                progress.row(row)


def run_on_gpus(options: RunOptions, gpus: int, progress: Progress) -> None:
    """Run one process per GPU, each a rank; this process only shows the progress.

    Raises:
        InfLLMError: a process ended with an error.
    """
    start(options, prepare(options, load_tokenizer(options.config)), progress)
    context = multiprocessing.get_context("spawn")
    processes = []
    for rank in range(gpus):
        rank_options = replace(options, rank=rank, world_size=gpus)
        process = context.Process(target=_run_rank, args=(rank_options,))
        with _one_gpu_visible(rank):
            process.start()
        processes.append(process)
    try:
        while any(process.is_alive() for process in processes):
            time.sleep(1)
            progress.watch(options.output, options.tasks)
    finally:
        for process in processes:
            process.terminate()
            process.join()
    failed = [str(rank) for rank, process in enumerate(processes) if process.exitcode]
    if failed:
        raise InfLLMError(f"rank {', '.join(failed)} ended with an error; its message is above")


def _run_rank(options: RunOptions) -> None:
    try:
        run(options, Progress(show=False, verbose=options.verbose))
    except InfLLMError as error:
        raise SystemExit(f"rank {options.rank}: {error}") from None


@contextmanager
def _one_gpu_visible(rank: int) -> Iterator[None]:
    """Make only the GPU of `rank` visible to a process started inside the `with` block."""
    before = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = before.split(",") if before else []
    os.environ["CUDA_VISIBLE_DEVICES"] = names[rank] if rank < len(names) else str(rank)
    try:
        yield
    finally:
        if before is None:
            del os.environ["CUDA_VISIBLE_DEVICES"]
        else:
            os.environ["CUDA_VISIBLE_DEVICES"] = before


def gpu_count() -> int:
    """Return the number of GPUs that this process may use."""
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0
