"""The memories between requests: the answer of a fresh read, sooner; never more than the budget."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch

import inf_llm
from inf_llm.generation import Session
from inf_llm.generation.footprint import footprint
from inf_llm.generation.text import AnswerText
from inf_llm.serve.errors import ApiError
from inf_llm.serve.pool import MemoryPool
from inf_llm.serve.worker import Job, Worker
from tests.tiny import SETTINGS, tiny_model, tiny_tokenizer

TYPES = {
    "inf-llm": SETTINGS,
    "perhead": {**SETTINGS, "perhead": True},
    "stream-lm": {"n_init": 4, "n_local": 64},
}
GRAIN = SETTINGS["exc_block_size"]


def _ids(seed: int, length: int) -> list[int]:
    return torch.randint(2, 200, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


DOCUMENT = _ids(0, 900)


@pytest.fixture(params=list(TYPES))
def model(request: pytest.FixtureRequest) -> Any:
    settings = TYPES[request.param]
    kind = "inf-llm" if request.param == "perhead" else request.param
    return inf_llm.patch(tiny_model(), type=kind, **settings)


def _pool(model: Any, budget: int = 1 << 30) -> MemoryPool:
    return MemoryPool(model, tiny_tokenizer(), budget, 128)


def _answer(session: Session) -> tuple[int, ...]:
    return session.ask(max_new_tokens=6, min_new_tokens=6).token_ids


def _fresh(model: Any, ids: list[int]) -> tuple[int, ...]:
    session = Session(model, tiny_tokenizer(), 128)
    session.read(ids)
    return _answer(session)


def test_answers_are_those_of_a_fresh_read(model: Any) -> None:
    pool = _pool(model)
    expected_reuse = [0, True, True, True]
    for question, reused in zip(range(4), expected_reuse, strict=True):
        ids = DOCUMENT + _ids(10 + question, 20 + 31 * question)
        session, cached = pool.read(ids, boundaries=[len(DOCUMENT)])
        assert bool(cached) == bool(reused)
        assert _answer(session) == _fresh(model, ids)


def test_a_conversation_reads_only_what_is_new(model: Any) -> None:
    pool = _pool(model)
    ids = list(DOCUMENT)
    for turn in range(4):
        session, cached = pool.read(ids)
        if turn:
            assert len(ids) - cached <= 60 + 6 + 2 * pool.grain
        answer = _answer(session)
        assert answer == _fresh(model, ids)
        ids += [*answer, *_ids(50 + turn, 60)]


def test_where_two_prompts_part_is_remembered(model: Any) -> None:
    """Nobody said where the document ends; the third question finds out from the second."""
    pool = _pool(model)
    reuse = [pool.read(DOCUMENT + _ids(seed, 600))[1] for seed in (1, 2, 3)]
    assert reuse[2] == len(DOCUMENT) // pool.grain * pool.grain


def test_the_budget_holds_and_ends_leave_before_roots(model: Any) -> None:
    pool = _pool(model)
    pool.read([*DOCUMENT, 5], boundaries=[len(DOCUMENT)])
    pool.budget = int(pool.bytes * 1.5)
    for seed in range(6):
        pool.read(DOCUMENT + _ids(seed, 200), boundaries=[len(DOCUMENT)])
        assert pool.bytes <= pool.budget
        pool.trim()
        assert footprint(kept.session for kept in pool._kept) == pool.bytes
    assert pool.evicted
    assert pool.read([*DOCUMENT, 7])[1] == len(DOCUMENT) // pool.grain * pool.grain


def test_nothing_is_kept_without_room(model: Any) -> None:
    pool = _pool(model, budget=1)
    session, _ = pool.read(DOCUMENT)
    assert len(pool) == 0
    assert _answer(session) == _fresh(model, DOCUMENT)


def test_a_reading_that_is_stopped_goes_on_later() -> None:
    model = inf_llm.patch(tiny_model(), type="inf-llm", **SETTINGS)
    pool = MemoryPool(model, tiny_tokenizer(), 1 << 30, 64)
    pool._chunk = 64

    def stop(done: int, total: int) -> None:
        assert total == len(DOCUMENT)
        if done >= 400:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pool.read(DOCUMENT, on_progress=stop)
    session, cached = pool.read(DOCUMENT)
    assert 300 <= cached <= 500
    assert _answer(session) == _fresh(model, DOCUMENT)


def test_shared_blocks_are_counted_once() -> None:
    model = inf_llm.patch(tiny_model(), type="inf-llm", **SETTINGS)
    session = Session(model, tiny_tokenizer())
    session.read(DOCUMENT)
    alone = footprint([session])
    stats = session.stats()
    ids = 8 * len(DOCUMENT)
    assert alone == stats.device_bytes + stats.host_bytes + stats.index_bytes + ids
    forks = [session.fork() for _ in range(5)]
    assert footprint([session, *forks]) < alone + 5 * (stats.device_bytes + ids) + 1


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


def test_text_comes_in_whole_characters_and_stops_in_time() -> None:
    tokenizer, said = tiny_tokenizer(), []
    ids = tokenizer("schön \U0001f600 ende gut")["input_ids"]
    text = AnswerText(tokenizer, ("ende gut", "gut so"), said.append)
    for token in ids:
        text.put(torch.tensor([token]))
    text.end()
    assert text.text == "".join(said) == "schön \U0001f600 "
    assert text.stopped
    assert "\ufffd" not in "".join(said)
    text = AnswerText(tokenizer, ("gut so",), said.append)
    for token in ids:
        text.put(torch.tensor([token]))
    text.end()
    assert text.text == "schön \U0001f600 ende gut"
