"""The one thread that runs the model: fair to its clients, and not ended by any job."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from inf_llm.generation import rows as rows_module
from inf_llm.serve import worker as worker_module
from inf_llm.serve.errors import ApiError
from inf_llm.serve.scheduler import Scheduler
from inf_llm.serve.worker import Job, Worker
from tests.serve.talk import until


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
    worker = _running(*jobs)
    until(lambda: len(results) == 3)
    assert worker.alive
    assert worker.stop(10)


def _running(*jobs: Job, failures: list[BaseException] | None = None) -> Worker:
    worker = Worker(10, (failures if failures is not None else []).append)
    for job in jobs:
        worker.submit(job)
    worker.start()
    return worker


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
    worker = _running(job)
    until(lambda: len(done) > 5)
    job.cancel()
    at = len(done)
    assert closed.wait(10)
    assert len(done) <= at + 1
    until(lambda: results)
    assert results[0].code == "cancelled"
    assert worker.cancelled == 1
    assert worker.stop(10)


class _Row:
    """What the worker knows of a `Decoding`."""

    answers = True

    def __init__(self, fails: bool = False) -> None:
        self.waiting, self.taken, self.fails, self.over = 1, 0, fails, False

    def choose(self, logits: Any) -> None:
        if self.fails:
            raise ValueError("no")
        self.taken += 1
        self.over = self.taken == 5


def _answering(row: _Row) -> Callable[[Job], Iterator[Any]]:
    def steps(job: Job) -> Iterator[Any]:
        while not row.over:
            yield [row]
        return row.taken

    return steps


@pytest.fixture
def fed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """How many rows each pass fed; passes of three rows fail."""
    passes: list[int] = []

    def feed_all(rows: list[Any]) -> list[Any]:
        passes.append(len(rows))
        if len(rows) == 3:
            raise MemoryError
        return [None] * len(rows)

    monkeypatch.setattr(worker_module, "feed_all", feed_all)
    return passes


def test_answers_are_fed_together_and_one_that_fails_fails_alone(fed: list[int]) -> None:
    results: dict[str, Any] = {}
    rows = {"a": _Row(), "b": _Row(fails=True)}
    jobs = [
        Job(name, _answering(row), lambda result, name=name: results.__setitem__(name, result))
        for name, row in rows.items()
    ]
    worker = _running(*jobs)
    until(lambda: len(results) == 2)
    assert worker.stop(10)
    assert results["a"] == 5
    assert results["b"].status == 500
    assert 2 in fed


def test_after_a_pass_that_failed_answers_go_on_one_by_one(fed: list[int]) -> None:
    results: list[Any] = []
    failures: list[BaseException] = []
    jobs = [Job(name, _answering(_Row()), results.append) for name in "abc"]
    worker = _running(*jobs, failures=failures)
    until(lambda: len(results) == 3)
    assert worker.stop(10)
    assert results == [5, 5, 5]
    assert [type(failure) for failure in failures] == [MemoryError]
    assert fed.count(3) == 1
    assert set(fed[fed.index(3) + 1 :]) == {1}


def test_several_answers_of_one_job_are_fed_in_the_same_pass(fed: list[int]) -> None:
    """And one by one after a pass of all that failed."""
    results: list[Any] = []
    for count, passes in ((2, {2}), (3, {3, 1})):
        rows = [_Row() for _ in range(count)]

        def steps(job: Job, rows: list[_Row] = rows) -> Iterator[Any]:
            while not rows[0].over:
                yield rows
            return [row.taken for row in rows]

        fed.clear()
        worker = _running(Job("a", steps, results.append))
        until(lambda: results)
        assert worker.stop(10)
        assert results.pop() == [5] * count
        assert set(fed) == passes


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """How many rows each pass fed, of chunks and of answers."""
    passes: list[int] = []

    def feed_all(rows: list[Any]) -> list[Any]:
        passes.append(len(rows))
        if any(getattr(row, "breaks", False) for row in rows) and len(rows) > 1:
            raise MemoryError
        return [None] * len(rows)

    for module in (worker_module, rows_module):
        monkeypatch.setattr(module, "feed_all", feed_all)
        monkeypatch.setattr(module, "together", lambda rows: len(rows) > 1)
    return passes


def _reads(chunks: int) -> Callable[[Job], Iterator[int]]:
    def steps(job: Job) -> Iterator[int]:
        for _ in range(chunks):
            job.piggyback.feed(object())  # type: ignore[arg-type]
            yield 100
        return "read"

    return steps


def _until_done(*works: Callable[[Job], Any]) -> tuple[list[Any], list[BaseException]]:
    """What jobs of these come to, in the order in which they end, and what failed meanwhile."""
    results: list[Any] = []
    failures: list[BaseException] = []
    jobs = [Job(f"client {n}", work, results.append) for n, work in enumerate(works)]
    worker = _running(*jobs, failures=failures)
    until(lambda: len(results) == len(works))
    assert worker.stop(10)
    return results, failures


def test_answers_have_their_tokens_with_a_text(passes: list[int]) -> None:
    row = _Row()
    results, failures = _until_done(_reads(20), _answering(row))
    assert results == [5, "read"]
    assert not failures
    assert passes.count(2) >= 3  # a token alone may come first: it is not known that they can
    assert len(passes) == 20 + 5 - passes.count(2)


def test_the_end_of_a_prompt_takes_answers_along(passes: list[int]) -> None:
    row, end = _Row(), _Row()
    row.over, end.answers, end.waiting = False, False, 40
    asked = threading.Event()

    def asks(job: Job) -> Iterator[Any]:
        asked.wait(10)
        yield 0
        yield [end]
        return "asked"

    def answers(job: Job) -> Iterator[Any]:
        for _ in range(5):
            asked.set()
            yield [row]
        return "answered"

    results, failures = _until_done(answers, asks)
    assert sorted(results) == ["answered", "asked"]
    assert not failures
    assert (end.taken, row.taken) == (1, 5)
    assert passes.count(2) == 1


@pytest.mark.parametrize("apart", [True, False])
def test_the_end_of_a_prompt_is_fed_by_itself_or_with_a_text(
    passes: list[int], monkeypatch: pytest.MonkeyPatch, apart: bool
) -> None:
    """With many short prompts it waits for a chunk of the text; the text is read either way."""
    monkeypatch.setattr(Scheduler, "apart", apart)
    ends = [_Row() for _ in range(6)]
    for end in ends:
        end.answers, end.waiting = False, 40

    def asks(job: Job) -> Iterator[Any]:
        for end in ends:
            yield [end]
        return "asked"

    results, failures = _until_done(_reads(20), asks)
    assert results == ["asked", "read"]
    assert not failures
    assert passes.count(2) <= 2 if apart else passes.count(2) == 6  # a text has its turns too
    assert len(passes) == 20 + 6 - passes.count(2)


def test_an_end_that_no_chunk_took_along_is_fed_by_itself(
    passes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job whose turn it was instead did something else."""
    monkeypatch.setattr(Scheduler, "apart", False)
    end = _Row()
    end.answers, end.waiting = False, 40

    def idles(job: Job) -> Iterator[int]:
        for _ in range(20):
            yield 1
        return "idled"

    def asks(job: Job) -> Iterator[Any]:
        yield [end]
        return "asked"

    results, failures = _until_done(idles, asks)
    assert results == ["asked", "idled"]
    assert not failures
    assert passes == [1]


def test_after_a_pass_with_a_text_that_failed_each_goes_on_by_itself(passes: list[int]) -> None:
    row = _Row()
    row.breaks = True  # type: ignore[attr-defined]
    results, failures = _until_done(_reads(20), _answering(row))
    assert results == [5, "read"]
    assert [type(failure) for failure in failures] == [MemoryError]
    assert passes.count(2) == 1


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
    worker = _running(first, Job("b", waits, results.append))
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
