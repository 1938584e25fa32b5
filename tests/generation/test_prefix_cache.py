"""Memories between prompts: the answer of a fresh read, sooner; never more than the budget."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import inf_llm
from inf_llm.errors import SettingsError
from inf_llm.generation import Session
from inf_llm.generation.decoding import Decoding, step
from inf_llm.generation.disk_prefix_cache import DiskPrefixCache
from inf_llm.generation.footprint import footprint
from inf_llm.generation.prefix_cache import PrefixCache
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


def _pool(model: Any, budget: int = 1 << 30) -> PrefixCache:
    return PrefixCache(model, tiny_tokenizer(), 128, budget=budget)


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
    assert reuse[2] == len(DOCUMENT) // pool._block * pool._block


def test_the_budget_holds_and_ends_leave_before_roots(model: Any) -> None:
    pool = _pool(model)
    pool.read([*DOCUMENT, 5], boundaries=[len(DOCUMENT)])
    pool.budget = int(pool.bytes * 2.5)
    for seed in range(6):
        pool.read(DOCUMENT + _ids(seed, 200), boundaries=[len(DOCUMENT)])
        assert pool.bytes <= pool.budget
        pool.trim()
        assert footprint(kept.session for kept in pool._kept) == pool.bytes
    assert pool.evicted
    assert pool.read([*DOCUMENT, 7])[1] == len(DOCUMENT) // pool._block * pool._block


def test_nothing_is_kept_without_room(model: Any) -> None:
    pool = _pool(model, budget=1)
    session, _ = pool.read(DOCUMENT)
    assert len(pool) == 0
    assert _answer(session) == _fresh(model, DOCUMENT)


def test_a_reading_that_is_stopped_goes_on_later() -> None:
    model = inf_llm.patch(tiny_model(), type="inf-llm", **SETTINGS)
    pool = PrefixCache(model, tiny_tokenizer(), 64)

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


def test_points_are_few_and_the_costly_ones_stay(model: Any) -> None:
    memory = PrefixCache(model, tiny_tokenizer(), points=3)
    ids = _ids(1, 1240)
    for length in (640, 640 + 40, 640 + 80, 640 + 120, 640 + 600):
        memory.read(ids[:length])
    assert len(memory) == 3
    assert memory.lengths[0] <= 640
    assert 1240 - GRAIN <= memory.lengths[-1] < 1240
    memory.read(_ids(2, 100))
    assert memory.lengths[0] < 100
    assert len(memory) == 1, "another conversation is not kept beside"
    with pytest.raises(SettingsError, match="points = 0"):
        PrefixCache(model, tiny_tokenizer(), points=0)


def test_a_memory_of_every_token_is_cut_back_not_forked() -> None:
    model = tiny_model()
    pool = PrefixCache(model, tiny_tokenizer())
    for question in range(3):
        ids = DOCUMENT + _ids(10 + question, 30)
        session, cached = pool.read(ids, boundaries=[len(DOCUMENT)])
        assert cached == (len(DOCUMENT) if question else 0)
        assert _answer(session) == _fresh(model, ids)
        pool.keep(session)
    assert len(pool) == 1, "a question is cut off sooner than a document is copied"
    other = DOCUMENT[:100] + _ids(20, 300)
    assert pool.read(other)[1] == 100
    assert len(pool) == 2, "a document stays where another text shares a little of it"
    longer = [*session.ids, 5, 6]
    again, cached = pool.read(longer)
    assert (cached, len(pool)) == (len(longer) - 3, 2)
    assert _answer(again) == _fresh(model, longer)


@pytest.mark.parametrize("kind", [*TYPES, "origin"])
def test_another_process_goes_on_from_the_shelf(kind: str, tmp_path: Path) -> None:
    model = tiny_model()
    if kind != "origin":
        settings = TYPES[kind]
        model = inf_llm.patch(model, type="inf-llm" if kind == "perhead" else kind, **settings)
    ids = DOCUMENT + _ids(10, 30)

    def cache() -> PrefixCache:
        disk_cache = DiskPrefixCache(tmp_path, model, tiny_tokenizer())
        return PrefixCache(model, tiny_tokenizer(), 128, disk_cache=disk_cache)

    first = cache()
    first.read(DOCUMENT)
    beginning = first.fork_for_disk(DOCUMENT)
    assert beginning is not None
    DiskPrefixCache(tmp_path, model, tiny_tokenizer()).put(beginning)

    second = cache()
    assert second.fork_for_disk(DOCUMENT) is None, "it has read nothing"
    session, cached = second.read(ids)
    assert len(DOCUMENT) - first.grain <= cached <= len(DOCUMENT)
    assert _answer(session) == _fresh(model, ids)
    assert second.fork_for_disk(ids, 500) is None, "the disk_cache has most of it"
    assert second.fork_for_disk(ids, 1) is not None
    assert second.read(ids + ids)[1] > len(DOCUMENT), "what is kept is longer than what is shelved"


def test_without_a_shelf_nothing_is_shelved(model: Any) -> None:
    pool = _pool(model)
    pool.read(DOCUMENT)
    assert pool.fork_for_disk(DOCUMENT[:100]) is None
    assert pool.fork_for_disk(DOCUMENT) is not None


def _to_the_end(reading: Any) -> tuple[Session, int]:
    while True:
        try:
            next(reading)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]


def test_several_prompts_are_read_in_turns(model: Any) -> None:
    """Each is as if read alone; what is in use counts until it is released."""
    pool, prompts = _pool(model), [_ids(seed, 300 + 100 * seed) for seed in range(3)]
    readings = [pool.reading(prompt) for prompt in prompts]
    for _ in range(3):
        for reading in readings:
            next(reading)
    sessions = [_to_the_end(reading)[0] for reading in readings]
    for session, prompt in zip(sessions, prompts, strict=True):
        assert session.ids == prompt
        alone = _pool(model).read(prompt)[0]
        assert session.ask(max_new_tokens=6).token_ids == alone.ask(max_new_tokens=6).token_ids
    pool.trim()
    with_them = pool.bytes
    for session in sessions:
        pool.release(session)
    pool.trim()
    assert pool.bytes < with_them
    assert pool.read([*prompts[2], 7])[1] >= 400


def test_a_reading_that_is_closed_keeps_what_it_read(model: Any) -> None:
    pool = _pool(model)
    reading = pool.reading(DOCUMENT)
    for _ in range(4):
        done = next(reading)
    reading.close()
    assert pool.lengths == (done,)
    assert pool.read(DOCUMENT)[1] == done
    pool.trim()
    assert pool.bytes == footprint(kept.session for kept in pool._kept), "nothing is in use"


def test_a_session_that_answers_is_not_cut_by_another_prompt() -> None:
    """Where one session is kept for a whole text, a prompt that begins alike takes a copy."""
    model = tiny_model()
    pool = _pool(model)
    session, _ = _to_the_end(pool.reading(DOCUMENT))
    row = Decoding(session, {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None})
    for _ in range(3):
        step([row])
    other, cached = pool.read([*DOCUMENT[:800], 7, 8, 9])
    assert cached == 800
    assert other is not session
    while not row.over:
        step([row])
    pool.release(session)
    assert tuple(row.new) == _fresh(model, DOCUMENT)
    assert _answer(other) == _fresh(model, [*DOCUMENT[:800], 7, 8, 9])
    assert pool.read([*DOCUMENT, 4])[0] is session  # the control: now it may be taken
