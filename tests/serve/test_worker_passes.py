"""The forward passes of the worker: which rows are fed together, and what follows a failure."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from inf_llm.generation import rows as rows_module
from inf_llm.serve import worker as worker_module
from inf_llm.serve.scheduler import Scheduler
from inf_llm.serve.worker import Job
from tests.serve.talk import until
from tests.serve.workers import running_worker


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
    worker = running_worker(*jobs)
    until(lambda: len(results) == 2)
    assert worker.stop(10)
    assert results["a"] == 5
    assert results["b"].status == 500
    assert 2 in fed


def test_after_a_pass_that_failed_answers_go_on_one_by_one(fed: list[int]) -> None:
    results: list[Any] = []
    failures: list[BaseException] = []
    jobs = [Job(name, _answering(_Row()), results.append) for name in "abc"]
    worker = running_worker(*jobs, failures=failures)
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
        worker = running_worker(Job("a", steps, results.append))
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
    worker = running_worker(*jobs, failures=failures)
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
