"""Rows against likelihoods computed by hand, and controls at both ends."""

from __future__ import annotations

import pytest
import torch

import inf_llm
from inf_llm.fidelity.measure import DENSE, OWN, PROSE_ROW, Measure, Row
from inf_llm.fidelity.readers import FULL, WINDOW, CacheFactory, Reader
from inf_llm.fidelity.tasks import Context, ContextBuilder
from tests.tiny import tiny_model

STEP = 256


@pytest.fixture
def context(workshop: ContextBuilder) -> Context:
    return workshop.context("number", 0)


def _rows(
    caches: CacheFactory, context: Context, read: str, full: bool = True
) -> dict[str, list[Row]]:
    names = [name for name in caches.readers if full or name != FULL]
    found: dict[str, list[Row]] = {}
    for row in Measure(caches, STEP, read, full).rows(context, names):
        found.setdefault(row["rule"], []).append(row)
    return found


@torch.no_grad()
def _by_hand(context: Context, number: int, reader: Reader | None) -> float:
    """Nats a token of an answer, decoded one token after the other."""
    model, question = tiny_model(), context.questions[number]
    cache = None
    if reader is not None:
        cache = inf_llm.new_cache(inf_llm.patch(model, reader.settings))
    ids = [*context.ids, *question.tail, *question.answer]
    if cache is None:
        logits = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        start = len(context.ids) + len(question.tail)
        return -sum(float(logits[start + i - 1, t]) for i, t in enumerate(question.answer)) / len(
            question.answer
        )
    for at in range(0, len(context.ids), STEP):
        model(torch.tensor([context.ids[at : at + STEP]]), past_key_values=cache)
    if question.tail[:-1]:
        model(torch.tensor([question.tail[:-1]]), past_key_values=cache)
    total, token = 0.0, question.tail[-1]
    for wanted in question.answer:
        logits = model(torch.tensor([[token]]), past_key_values=cache).logits[0, -1]
        total -= float(logits.log_softmax(-1)[wanted])
        token = wanted
    return total / len(question.answer)


def test_likelihoods_are_those_of_decoding(caches: CacheFactory, context: Context) -> None:
    rows = _rows(caches, context, OWN)
    assert set(rows) == {FULL, WINDOW, "few", "all", "oracle"}
    for number in range(2):
        assert rows[FULL][number]["nll"] == pytest.approx(_by_hand(context, number, None), abs=2e-3)
        for name in (WINDOW, "few"):
            wanted = _by_hand(context, number, caches.readers[name])
            assert rows[name][number]["nll"] == pytest.approx(wanted, abs=2e-3)
    few, full = (rows[name][0]["nll"] for name in ("few", FULL))
    assert abs(few - full) > 0.01, "the rules differ by more than the tolerance"


def test_divergence_and_recall_at_both_ends(caches: CacheFactory, context: Context) -> None:
    for read in (OWN, DENSE):
        rows = _rows(caches, context, read)
        assert all(row["kl"] == 0 for row in rows[FULL])
        assert all(row["kl"] > 1e-3 for row in rows[WINDOW])
        assert all("recall" not in row for name in (FULL, WINDOW, "oracle") for row in rows[name])
        for row in rows["all"]:
            assert row["recall"]["held"] == row["recall"]["far"]
        held, far = (sum(rows["few"][0]["recall"][key]) for key in ("held", "far"))
        assert held < 0.8 * far


def test_a_dense_read_and_an_own_read_differ(caches: CacheFactory, context: Context) -> None:
    own, dense = (_rows(caches, context, read) for read in (OWN, DENSE))
    assert own["few"][0]["nll"] != pytest.approx(dense["few"][0]["nll"], abs=1e-3)
    assert own["few"][0]["recall"] == dense["few"][0]["recall"]


def test_the_prose_is_one_row_and_has_no_needle(caches: CacheFactory, context: Context) -> None:
    rows = _rows(caches, context, DENSE)["few"]
    assert [row["question"] for row in rows] == [0, 1, PROSE_ROW]
    assert {row["probes"] for row in rows} == {3}
    assert rows[2]["kl_question"] is None
    assert rows[2]["tokens"] == len(context.prose) - 1
    assert not any(rows[2]["recall"]["needle"])


def test_without_full_attention_there_is_nothing_to_compare_with(
    caches: CacheFactory, context: Context
) -> None:
    rows = _rows(caches, context, OWN, full=False)
    assert FULL not in rows
    assert all(not {"kl", "recall"} & row.keys() for each in rows.values() for row in each)
