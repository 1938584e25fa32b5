"""The one thread that runs the model: fair to its clients, and not ended by any job."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from inf_llm.serve.errors import ApiError
from inf_llm.serve.worker import Job, Worker


def test_clients_take_turns() -> None:
    worker, done = Worker(10, lambda error: None), []
    gate = threading.Event()
    worker.submit(Job("a", lambda job: gate.wait(), lambda result: None))
    finished = threading.Event()
    for client, name in [("a", "a1"), ("a", "a2"), ("a", "a3"), ("b", "b1"), ("c", "c1")]:
        worker.submit(Job(client, lambda job, name=name: done.append(name), lambda result: None))
    worker.submit(Job("c", lambda job: finished.set(), lambda result: None))
    worker.start()
    gate.set()
    assert finished.wait(10)
    assert worker.stop(10)
    assert done.index("b1") < done.index("a2")
    assert done.index("c1") < done.index("a3")


def test_a_worker_outlives_its_jobs_and_has_a_limit() -> None:
    failures: list[BaseException] = []
    results: list[Any] = []
    worker = Worker(2, failures.append)
    gone = Job("a", lambda job: 1, results.append)
    gone.cancel()
    worker.submit(gone)
    worker.submit(Job("a", lambda job: 1 / 0, results.append))
    worker.submit(Job("a", lambda job: 2, results.append))
    with pytest.raises(ApiError, match="waiting already"):
        worker.submit(Job("b", lambda job: 1, results.append))
    worker.start()
    while worker.waiting or worker.running:
        pass
    assert worker.stop(10)
    assert [getattr(result, "status", result) for result in results] == [503, 500, 2]
    assert isinstance(failures[0], ZeroDivisionError)
    with pytest.raises(ApiError, match="stopping"):
        worker.submit(Job("b", lambda job: 1, results.append))
