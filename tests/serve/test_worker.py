"""The one thread that runs the model: fair to its clients, and not ended by any job."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from inf_llm.serve import worker as worker_module
from inf_llm.serve.errors import ApiError
from inf_llm.serve.worker import Job, Worker
from tests.serve.talk import until
from tests.serve.workers import running_worker


def _at_once(work: Callable[[], Any]) -> Callable[[Job], Iterator[Any]]:
    """A job of one step."""

    def steps(job: Job) -> Iterator[Any]:
        return work()
        yield

    return steps


def test_clients_take_turns() -> None:
    worker, done = Worker(10, lambda error: None), []
    gate = threading.Event()
    worker.submit(Job("a", _at_once(gate.wait), lambda result: None))
    finished = threading.Event()
    for client, name in [("a", "a1"), ("a", "a2"), ("a", "a3"), ("b", "b1"), ("c", "c1")]:
        worker.submit(
            Job(client, _at_once(lambda name=name: done.append(name)), lambda result: None)
        )
    worker.submit(Job("c", _at_once(finished.set), lambda result: None))
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
    gone = Job("a", _at_once(lambda: 1), results.append)
    gone.cancel()
    worker.submit(gone)
    worker.submit(Job("a", _at_once(lambda: 1 / 0), results.append))
    worker.submit(Job("a", _at_once(lambda: 2), results.append))
    with pytest.raises(ApiError, match="waiting already"):
        worker.submit(Job("b", _at_once(lambda: 1), results.append))
    worker.start()
    until(lambda: len(results) == 3)
    assert worker.stop(10)
    assert [getattr(result, "status", result) for result in results] == [503, 500, 2]
    assert isinstance(failures[0], ZeroDivisionError)
    with pytest.raises(ApiError, match="stopping"):
        worker.submit(Job("b", _at_once(lambda: 1), results.append))


def test_a_worker_outlives_what_cannot_take_a_result() -> None:
    """As an event loop that has ended meanwhile."""
    results: list[Any] = []

    def closed(result: Any) -> None:
        results.append(result)
        raise RuntimeError("Event loop is closed")

    jobs = [Job("a", _at_once(lambda value=value: value), closed) for value in range(3)]
    jobs[1].cancel()
    worker = running_worker(*jobs)
    until(lambda: len(results) == 3)
    assert worker.alive
    assert worker.stop(10)


def test_a_cancelled_job_ends_before_its_next_step() -> None:
    done: list[int] = []
    closed, going, results = threading.Event(), threading.Event(), list[Any]()

    def book(job: Job) -> Iterator[int]:
        try:
            for step in range(10**6):
                done.append(step)
                going.wait(0.001)
                yield 100
        finally:
            closed.set()

    job = Job("a", book, results.append)
    worker = running_worker(job)
    until(lambda: len(done) > 5)
    job.cancel()
    at = len(done)
    assert closed.wait(10)
    assert len(done) <= at + 1
    until(lambda: results)
    assert results[0].code == "cancelled"
    assert worker.cancelled == 1
    assert worker.stop(10)


@pytest.mark.parametrize("cancelled", [False, True])
def test_a_job_that_waits_for_another_to_end_takes_no_turns_from_it(cancelled: bool) -> None:
    looked: list[bool] = []
    results: list[Any] = []
    gone = threading.Event()

    def book(job: Job) -> Iterator[int]:
        try:
            for _ in range(200):
                time.sleep(0.001)
                yield 100
        finally:
            gone.set()

    def waits(job: Job) -> Any:
        while not gone.is_set():
            looked.append(True)
            yield None
        return "waited"

    first = Job("a", book, results.append)
    worker = running_worker(first, Job("b", waits, results.append))
    until(lambda: looked)
    if cancelled:
        first.cancel()
    until(lambda: len(results) == 2)
    assert results[1] == "waited"
    assert len(looked) <= 2
    assert worker.stop(10)


def _book(steps: int, done: Callable[[], None]) -> Callable[[Job], Iterator[int]]:
    def read(job: Job) -> Iterator[int]:
        for _ in range(steps):
            time.sleep(0.001)
            yield 100
        done()

    return read


def test_jobs_that_wait_for_room_take_no_place_of_those_that_can_run() -> None:
    """And when all can go on, no more than may take turns."""
    full, small, most, order = threading.Event(), threading.Event(), [0], list[str]()

    def waits(job: Job) -> Iterator[Any]:
        while not full.is_set():
            yield None
        for _ in range(5):
            most[0] = max(most[0], len(worker._runnable()[: worker._at_once]))
            yield 100

    def large(job: Job) -> Iterator[int]:
        while not small.is_set():  # only what comes last lets it end
            time.sleep(0.001)
            yield 100
        full.set()

    jobs = [Job("a", large, lambda result: order.append("large"))]
    jobs += [Job(f"b{n}", waits, lambda result: order.append("waits")) for n in range(4)]
    jobs += [Job("c", _book(3, small.set), lambda result: order.append("small"))]
    worker = Worker(6, lambda error: None, at_once=2)
    for job in jobs:
        worker.submit(job)
    worker.start()
    until(lambda: len(order) == 6)
    assert order[:2] == ["small", "large"]
    assert most[0] == 2
    assert worker.stop(10)


def test_jobs_that_wait_for_room_count_as_waiting() -> None:
    ends = threading.Event()

    def large(job: Job) -> Iterator[int]:
        while not ends.is_set():
            time.sleep(0.001)
            yield 100

    def waits(job: Job) -> Iterator[None]:
        while not ends.is_set():
            yield None

    worker = Worker(2, lambda error: None, at_once=1)
    worker.start()
    results: list[Any] = []
    for work in (large, waits, waits):
        if work is waits:
            until(lambda: worker.running == 1)
        worker.submit(Job("a", work, results.append))
    with pytest.raises(ApiError, match="waiting already"):
        worker.submit(Job("a", waits, results.append))
    worker.submit(Job("a", waits, results.append), always=True)
    assert worker.waiting == 3
    ends.set()
    until(lambda: len(results) == 4)
    assert worker.stop(10)


def test_what_is_done_when_nothing_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "IDLE_SECONDS", 0.02)
    idle: list[bool] = []
    worker = Worker(9, lambda error: None, on_idle=lambda: idle.append(True))
    worker.start()
    for times in (1, 2):
        results: list[Any] = []
        worker.submit(Job("a", _book(50, lambda: None), results.append))
        until(lambda results=results: bool(results))
        until(lambda times=times: len(idle) >= times)
        time.sleep(0.1)
        assert len(idle) <= times + 1
    assert worker.stop(10)
