"""Several sessions answer in one forward pass, each with the tokens that it would say alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from inf_llm.generation import Session
from inf_llm.generation.decoding import Decoding, step
from inf_llm.generation.options import answer_options
from inf_llm.generation.rows import together

TEXTS = [
    "The quick brown fox jumps over the lazy dog. " * 12,
    "It was the best of times, it was the worst of times. " * 9 + "Or not?",
    "Short.",
    "Call me Ishmael. Some years ago, never mind how long precisely. " * 5,
]
NEW = 12
OPTIONS = {"max_new_tokens": NEW, "do_sample": False, "eos_token_id": None}


def _session(model: Any, tokenizer: Any, text: str) -> Session:
    session = Session(model, tokenizer, 64)
    session.read(text)
    return session


def _row(session: Session, new: int = NEW, seed: int | None = None, **requested: Any) -> Decoding:
    options = answer_options(session.model, session.tokenizer, new, requested)
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    return Decoding(session, options, generator=generator)


def _alone(model: Any, tokenizer: Any, text: str, new: int = NEW) -> list[int]:
    return list(_session(model, tokenizer, text).ask(max_new_tokens=new).token_ids)


def _finish(rows: list[Decoding]) -> None:
    while going := [row for row in rows if not row.over]:
        step(going)


def test_rows_say_what_they_would_say_alone(model: Any, tokenizer: Any) -> None:
    rows = [_row(_session(model, tokenizer, text)) for text in TEXTS]
    _finish(rows)
    assert [row.new for row in rows] == [_alone(model, tokenizer, text) for text in TEXTS]
    for row, text in zip(rows, TEXTS, strict=True):  # and each goes on by itself
        alone = _session(model, tokenizer, text)
        alone.ask(max_new_tokens=NEW)
        more = row.session.ask("And?", max_new_tokens=4)
        assert more.token_ids == alone.ask("And?", max_new_tokens=4).token_ids


def test_rows_join_and_leave(memory_model: Any, tokenizer: Any) -> None:
    lengths = [3, 40, 17, 25]
    going: list[Decoding] = []
    rows = [
        _row(_session(memory_model, tokenizer, text), new)
        for text, new in zip(TEXTS, lengths, strict=True)
    ]
    for row in rows:
        going.append(row)
        for _ in range(4):
            going = [each for each in going if not each.over]
            step(going)
    _finish(rows)
    alone = [_alone(memory_model, tokenizer, *each) for each in zip(TEXTS, lengths, strict=True)]
    assert [row.new for row in rows] == alone


def test_one_pass_feeds_all_rows_of_a_memory(memory_model: Any, tokenizer: Any) -> None:
    rows = [_row(_session(memory_model, tokenizer, text)) for text in TEXTS]
    assert len({row.waiting for row in rows}) > 1  # ends of prompts
    calls: list[int] = []
    hook = memory_model.register_forward_pre_hook(lambda *call: calls.append(1))
    for steps in (1, 2):
        step(rows)
        assert len(calls) == steps
    hook.remove()


def test_without_a_memory_rows_go_one_by_one(bare: Any, tokenizer: Any) -> None:
    rows = [_row(_session(bare, tokenizer, text)) for text in TEXTS]
    step(rows)
    assert not together(rows)
    _finish(rows)
    assert [row.new for row in rows] == [_alone(bare, tokenizer, text) for text in TEXTS]


def test_swapped_memories_are_noticed(memory_model: Any, tokenizer: Any) -> None:
    """The control: a row that goes on from another one's memory says something else."""
    texts = [TEXTS[0], TEXTS[0].swapcase()]
    rows = [_row(_session(memory_model, tokenizer, text)) for text in texts]
    step(rows)
    first, second = (row.session for row in rows)
    first.cache, second.cache = second.cache, first.cache
    _finish(rows)
    assert rows[0].new != _alone(memory_model, tokenizer, texts[0])


def test_a_seed_draws_the_same_in_any_company(memory_model: Any, tokenizer: Any) -> None:
    how = {"temperature": 1.5, "top_p": 0.95, "top_k": 30}
    torch.manual_seed(5)
    alone = _session(memory_model, tokenizer, TEXTS[0]).ask(max_new_tokens=NEW, **how)
    seeded = _row(_session(memory_model, tokenizer, TEXTS[0]), seed=5, **how)
    others = [_row(_session(memory_model, tokenizer, text), seed=6, **how) for text in TEXTS]
    _finish([others[0], seeded, *others[1:]])
    assert seeded.new == list(alone.token_ids)
    assert others[0].new != seeded.new


def test_a_pass_that_breaks_off_is_made_good(
    memory_model: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [_row(_session(memory_model, tokenizer, text)) for text in TEXTS[:2]]
    for _ in range(3):
        step(rows)

    def fail(module: Any, *call: Any) -> None:
        raise MemoryError

    hook = memory_model.model.layers[1].register_forward_pre_hook(fail)
    with pytest.raises(MemoryError):
        step(rows)
    hook.remove()
    for row in rows:
        assert row.session.fed == 0
        for _ in row.catch_up():
            pass
    _finish(rows)
    assert [row.new for row in rows] == [_alone(memory_model, tokenizer, t) for t in TEXTS[:2]]


def _same_recalls(row: Decoding, other: Decoding) -> float:
    """The share of steps and layers in which two answers recalled the same blocks."""
    assert row.trace is not None
    assert other.trace is not None
    pairs = zip(row.trace.generated(), other.trace.generated(), strict=True)
    same = [mine.blocks == theirs.blocks for mine, theirs in pairs]
    return sum(same) / len(same)


def test_each_row_traces_its_own_recalls(memory_model: Any, tokenizer: Any) -> None:
    rows, alone = (
        [
            Decoding(_session(memory_model, tokenizer, text), OPTIONS, traced=True)
            for text in (TEXTS[0], TEXTS[1])
        ]
        for _ in range(2)
    )
    _finish(rows)
    for row, one in zip(rows, alone, strict=True):
        _finish([one])
        assert row.trace is not None
        assert one.trace is not None
        assert row.trace.tokens == one.trace.tokens > 0
        assert _same_recalls(row, one) > 0.9  # sums of other shapes decide near ties otherwise
    assert _same_recalls(*rows) < 0.5
    assert rows[0].trace.passages() != rows[1].trace.passages()
