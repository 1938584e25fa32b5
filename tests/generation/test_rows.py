"""A chunk of a text takes answers along, and each says what it would say alone."""

from __future__ import annotations

from typing import Any

import pytest

from inf_llm.generation import Session
from inf_llm.generation.decoding import Decoding, step
from inf_llm.generation.options import answer_options
from inf_llm.generation.rows import Piggyback, Row, together

TEXTS = [
    "The quick brown fox jumps over the lazy dog. " * 12,
    "Call me Ishmael. Some years ago, never mind how long precisely. " * 5,
]
BOOK = "It was the best of times, it was the worst of times. " * 30
NEW = 12


def _session(model: Any, tokenizer: Any, text: str) -> Session:
    session = Session(model, tokenizer, 64)
    session.read(text)
    return session


def _answers(model: Any, tokenizer: Any) -> list[Decoding]:
    sessions = [_session(model, tokenizer, text) for text in TEXTS]
    return [Decoding(each, answer_options(model, tokenizer, NEW, {})) for each in sessions]


def _alone(model: Any, tokenizer: Any, text: str) -> list[int]:
    return list(_session(model, tokenizer, text).ask(max_new_tokens=NEW).token_ids)


def _read_beside(reader: Session, rows: list[Decoding]) -> int:
    """Read the book while answers are given; how many chunks took answers along."""
    piggyback, taken = Piggyback(), 0
    piggyback.rows = list(rows)
    for _ in reader.reading(BOOK, piggyback=piggyback):
        for row, logits in zip(rows, piggyback.logits, strict=False):
            row.choose(logits)
        taken += bool(piggyback.logits)
        going = [row for row in rows if not row.over]
        piggyback.rows, piggyback.logits = going, ()
        rows = going
    return taken


def test_answers_beside_a_text(memory_model: Any, tokenizer: Any) -> None:
    rows, reader = _answers(memory_model, tokenizer), Session(memory_model, tokenizer, 64)
    assert _read_beside(reader, rows) == NEW
    assert all(row.over for row in rows)
    assert [row.new for row in rows] == [_alone(memory_model, tokenizer, text) for text in TEXTS]
    answer = _session(memory_model, tokenizer, BOOK).ask(max_new_tokens=NEW)
    assert reader.ask(max_new_tokens=NEW).token_ids == answer.token_ids


def test_without_a_memory_a_text_is_read_alone(bare: Any, tokenizer: Any) -> None:
    rows = _answers(bare, tokenizer)
    step(rows)
    reader = Session(bare, tokenizer, 64)
    assert _read_beside(reader, rows) == 0
    assert [len(row.new) for row in rows] == [1, 1]
    assert reader.fed > 64


def test_a_pass_that_fails_is_read_again_and_so_are_its_answers(
    memory_model: Any, tokenizer: Any
) -> None:
    rows, reader = _answers(memory_model, tokenizer), Session(memory_model, tokenizer, 64)
    step(rows)
    piggyback = Piggyback()
    reading = reader.reading(BOOK, piggyback=piggyback)
    assert next(reading) == 64

    def fail(module: Any, *call: Any) -> None:
        raise MemoryError

    hook = memory_model.model.layers[1].register_forward_pre_hook(fail)
    piggyback.rows = rows
    assert next(reading) == 0
    assert isinstance(piggyback.error, MemoryError)
    assert not piggyback.logits
    with pytest.raises(MemoryError):  # alone it is its own failure
        next(reading)
    hook.remove()
    for row in rows:
        assert row.session.fed == 0
        list(row.catch_up())
    while any(not row.over for row in rows):
        step(rows)
    assert [row.new for row in rows] == [_alone(memory_model, tokenizer, text) for text in TEXTS]
    reader.read("")
    answer = _session(memory_model, tokenizer, BOOK).ask(max_new_tokens=NEW)
    assert reader.ask(max_new_tokens=NEW).token_ids == answer.token_ids


def test_what_a_row_feeds(memory_model: Any, tokenizer: Any) -> None:
    session = _session(memory_model, tokenizer, TEXTS[0])
    row = Row(session)
    assert row.ids == session.ids[session.fed :]
    assert row.waiting == len(row.ids) > 3
    assert Row(session, most=3).ids == row.ids[:3]
    assert Row(session, most=3).waiting == 3
    assert Row(Session(memory_model, tokenizer), most=3).waiting == 0
    assert not together([row])
    assert together([row, Row(session.fork())])
