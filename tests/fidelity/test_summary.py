"""Summaries of rows that are written out."""

from __future__ import annotations

from typing import Any

import pytest

from inf_llm.fidelity.measure import PROSE_ROW
from inf_llm.fidelity.picture import BEST, panels
from inf_llm.fidelity.report import table
from inf_llm.fidelity.summary import ALL, summaries

LOSSES = {"full": (0.5, 1.5), "window": (3.0, 4.0), "a": (1.0, 2.0), "b": (2.0, 2.0)}


def _rows(task: str, shift: float = 0.0) -> list[dict[str, Any]]:
    rows = []
    for rule, losses in LOSSES.items():
        for context, loss in enumerate(losses):
            row = {"task": task, "context": context, "question": 0, "rule": rule, "depth": 0.3}
            row |= {"nll": loss - shift * (rule == "window"), "exact": rule == "full"}
            row |= {"right": 0.5, "kl_question": 0.1, "kl": 0.2 * context}
            if rule == "a":
                mass = {"far": 4, "held": 2, "best": 3, "needle": 1, "needle_held": 0.5 * context}
                row["recall"] = {k: [v, v] for k, v in {**mass, "needle_best": 1}.items()}
            rows.append(row)
            rows.append({**row, "question": PROSE_ROW, "kl": 7.0, "nll": 99.0, "depth": None})
    return rows


def test_figures() -> None:
    found = {each.rule: each for each in summaries(_rows("key"), "a")}
    assert list(found) == ["full", "window", "a", "b"]
    a, b = found["a"], found["b"]
    assert (a.questions, a.contexts, a.gap) == (2, 2, 2.5)
    assert a.nll.value == 1.5
    assert a.closed is not None
    assert a.closed.value == pytest.approx(2 / 2.5)
    assert a.worse is None
    assert b.worse is not None
    assert (b.worse.value, b.worse.error) == pytest.approx((0.5, 0.5))
    assert (found["full"].exact.value, a.exact.value) == (1, 0)
    assert a.kl_answer is not None
    assert a.kl_prose is not None
    assert (a.kl_answer.value, a.kl_prose.value) == pytest.approx((0.1, 7.0))
    shares = [a.far, a.best_far, a.needle, a.best_needle]
    assert [each.value for each in shares if each] == pytest.approx([0.5, 0.75, 0.25, 1.0])
    assert b.far is None


def test_a_small_gap_has_no_share_and_does_not_count_in_all() -> None:
    rows = [*_rows("key"), *_rows("copy"), *_rows("easy", shift=2.0)]
    found = {(each.task, each.rule): each for each in summaries(rows, "a")}
    assert found["easy", "a"].closed is None
    assert found["easy", "a"].gap == 0.5
    everything = found[ALL, "a"]
    assert (everything.questions, everything.contexts) == (4, 4)
    assert everything.closed is not None


def test_without_full_attention_there_are_likelihoods_only() -> None:
    rows = [row for row in _rows("key") if row["rule"] != "full"]
    found = summaries(rows, "a")
    assert [each.rule for each in found] == ["window", "a", "b"]
    assert all(each.closed is None and each.gap is None for each in found)


def test_the_table_has_a_row_for_each() -> None:
    made = table(summaries(_rows("key"), "a"), "a title")
    assert made.row_count == 4
    assert list(made.columns[4].cells) == ["100 ± 0", "0 ± 0", "80 ± 0", "60 ± 20"]


def test_panels_have_bands_and_layers() -> None:
    found = panels(_rows("key"))
    assert list(found) == ["a", BEST]
    assert [len(found["a"]), len(found["a"][0])] == [5, 2]
    assert found["a"][4] == [0.25, 0.25]
    assert found[BEST][4] == [1.0, 1.0]
    assert found["a"][0][0] != found["a"][0][0], "no needle stood there"
