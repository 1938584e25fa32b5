"""Summaries of rows: one per task and rule, and one per rule over all tasks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from inf_llm.fidelity.measure import PROSE_ROW
from inf_llm.fidelity.readers import FULL, WINDOW
from inf_llm.fidelity.statistics import (
    MIN_GAP,
    Estimate,
    difference,
    gap_closed,
    jackknife,
    mean,
    share,
)

Row = dict[str, Any]
ALL = "all"
Column = Callable[[Row], "float | None"]
_COUNTS = ("exact", "right")


@dataclass(frozen=True)
class Summary:
    """Figures of one rule on one task; a figure that was not measured is None.

    Attributes:
        task: name of the task, or `ALL` for all tasks whose gap is at least `MIN_GAP`.
        rule: name of the rule.
        questions: number of questions.
        contexts: number of contexts.
        gap: loss of the window alone minus that of full attention, in nats per token.
        nll: negative log-likelihood of the right answer, in nats per token.
        closed: share of the gap closed; None if the gap is smaller than `MIN_GAP`.
        worse: `nll` minus that of the first rule, in nats per token.
        exact: share of answers in which every token is the most likely one.
        right: share of answer tokens that are the most likely ones.
        kl_question, kl_answer, kl_prose: KL divergence from full attention, by part of the text.
        far, needle: recalled share of full attention's far mass: of all tokens, of the needle.
        best_far, best_needle: the most of it that the same number of blocks could hold.
    """

    task: str
    rule: str
    questions: int
    contexts: int
    gap: float | None
    nll: Estimate
    closed: Estimate | None
    worse: Estimate | None
    exact: Estimate
    right: Estimate
    kl_question: Estimate | None
    kl_answer: Estimate | None
    kl_prose: Estimate | None
    far: Estimate | None
    needle: Estimate | None
    best_far: Estimate | None
    best_needle: Estimate | None


def summaries(rows: Sequence[Row], first: str) -> list[Summary]:
    """Return the summaries by task and rule, and those over all tasks if several have a gap.

    Full attention, the window alone and `first`, the rule to compare with, come before the other
    rules, which are in the order of the rows.
    """
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    made = [each for task in tasks for each in _of_task(task, _in(rows, {task}), first)]
    wide = {each.task for each in made if each.gap is not None and each.gap >= MIN_GAP}
    if len(wide) > 1:
        made += _of_task(ALL, _in(rows, wide), first)
    return made


def _in(rows: Iterable[Row], tasks: set[str]) -> list[Row]:
    return [row for row in rows if row["task"] in tasks]


def _of_task(task: str, rows: Sequence[Row], first: str) -> list[Summary]:
    by_rule: dict[str, list[Row]] = {}
    for row in rows:
        by_rule.setdefault(row["rule"], []).append(row)
    order = [name for name in (FULL, WINDOW, first) if name in by_rule]
    rules = [*order, *(name for name in by_rule if name not in order)]
    return [_Table(task, by_rule, first).summary(rule) for rule in rules]


class _Table:
    """The rows of one task, and the figures computed from columns of one or more rules."""

    def __init__(self, task: str, by_rule: dict[str, list[Row]], first: str) -> None:
        self._task, self._first, self._by_rule = task, first, by_rule

    def summary(self, rule: str) -> Summary:
        nll = self._over((rule, _nll), figure=mean)
        assert nll is not None
        exact, right = (self._over((rule, _number(key)), figure=mean) for key in _COUNTS)
        assert exact is not None
        assert right is not None
        question_rows = [row for row in self._by_rule[rule] if row["question"] != PROSE_ROW]
        gap = self._over((WINDOW, _nll), (FULL, _nll), figure=difference)
        compared = rule not in (FULL, WINDOW, self._first)
        return Summary(
            task=self._task,
            rule=rule,
            questions=len(question_rows),
            contexts=len({_context(row) for row in question_rows}),
            gap=None if gap is None else gap.value,
            nll=nll,
            closed=self._closed(rule, gap),
            worse=self._over((rule, _nll), (self._first, _nll), figure=difference)
            if compared
            else None,
            exact=exact,
            right=right,
            kl_question=self._kl(rule, "kl_question"),
            kl_answer=self._kl(rule, "kl"),
            kl_prose=self._kl(rule, "kl", prose=True),
            far=self._share(rule, "held", "far"),
            needle=self._share(rule, "needle_held", "needle"),
            best_far=self._share(rule, "best", "far"),
            best_needle=self._share(rule, "needle_best", "needle"),
        )

    def _closed(self, rule: str, gap: Estimate | None) -> Estimate | None:
        if gap is None or gap.value < MIN_GAP:
            return None
        return self._over((WINDOW, _nll), (rule, _nll), (FULL, _nll), figure=gap_closed)

    def _kl(self, rule: str, key: str, prose: bool = False) -> Estimate | None:
        return self._over((rule, _number(key)), figure=mean, prose=prose)

    def _share(self, rule: str, part: str, whole: str) -> Estimate | None:
        columns = [(rule, _mass(key)) for key in (part, whole)]
        estimate = self._over(*columns, figure=share)
        return None if estimate is None or math.isnan(estimate.value) else estimate

    def _over(
        self,
        *columns: tuple[str, Column],
        figure: Callable[[Sequence[float]], float],
        prose: bool = False,
    ) -> Estimate | None:
        """Compute a figure over the questions with a value in every column; None without any."""
        by_question: dict[tuple[Any, ...], list[float]] = {}
        for rule, value in columns:
            for row in self._by_rule.get(rule, ()):
                number = value(row) if (row["question"] == PROSE_ROW) == prose else None
                if number is not None:
                    by_question.setdefault((_context(row), row["question"]), []).append(number)
        clusters: dict[Any, list[tuple[float, ...]]] = {}
        for (context, _), values in by_question.items():
            if len(values) == len(columns):
                clusters.setdefault(context, []).append(tuple(values))
        return jackknife(clusters, figure) if clusters else None


def _context(row: Row) -> tuple[str, int]:
    return row["task"], row["context"]


def _nll(row: Row) -> float:
    return float(row["nll"])


def _number(key: str) -> Column:
    """Return a column of numbers, with None for rows that lack the number."""
    return lambda row: None if row.get(key) is None else float(row[key])


def _mass(key: str) -> Column:
    """Return a column of mass summed over layers, with None for rows without recall."""
    return lambda row: sum(row["recall"][key]) if "recall" in row else None
