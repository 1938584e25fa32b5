"""Workers of the server for tests."""

from __future__ import annotations

from inf_llm.serve.worker import Job, Worker


def running_worker(*jobs: Job, failures: list[BaseException] | None = None) -> Worker:
    worker = Worker(10, (failures if failures is not None else []).append)
    for job in jobs:
        worker.submit(job)
    worker.start()
    return worker
