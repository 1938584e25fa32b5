"""Table of the results of a run, for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from inf_llm.fidelity.statistics import MIN_GAP, Estimate
from inf_llm.fidelity.summary import Summary

_HEADS = (
    ("NLL", "nats a token"),
    ("vs first", "nats"),
    ("gap closed", "%"),
    ("exact", "%"),
    ("tokens", "% right"),
    ("KL", "question, answer, prose"),
    ("recall", "% far, needle"),
    ("best", "% far, needle"),
)


def table(summaries: Sequence[Summary], title: str) -> Table:
    """Make a table: a row per task and rule, a standard error after each figure that has one."""
    made = Table(title=title, title_justify="left", title_style="bold", caption_justify="left")
    made.caption = (
        "± is one standard error, by the jackknife over contexts; a gap below "
        f"{MIN_GAP:g} nat has no share"
    )
    made.add_column("task", no_wrap=True)
    made.add_column("rule", overflow="fold")
    for name, unit in _HEADS:
        made.add_column(f"{name}\n{unit}", justify="right", no_wrap=True)
    task = None
    for summary in summaries:
        if summary.task != task:
            made.add_section()
        made.add_row(_task(summary) if summary.task != task else "", summary.rule, *_cells(summary))
        task = summary.task
    return made


def _task(summary: Summary) -> str:
    gap = "" if summary.gap is None else f", gap {summary.gap:.2f}"
    return f"{summary.task}\nn = {summary.questions} in {summary.contexts}{gap}"


def _cells(summary: Summary) -> list[str]:
    return [
        _figure(summary.nll, "{:.2f}"),
        _figure(summary.worse, "{:+.2f}"),
        _figure(summary.closed, "{:.0f}", 100),
        _figure(summary.exact, "{:.0f}", 100, errors=False),
        _figure(summary.right, "{:.0f}", 100, errors=False),
        _several("{:.2f}", 1, summary.kl_question, summary.kl_answer, summary.kl_prose),
        _several("{:.0f}", 100, summary.far, summary.needle),
        _several("{:.0f}", 100, summary.best_far, summary.best_needle),
    ]


def _figure(estimate: Estimate | None, form: str, factor: float = 1, errors: bool = True) -> str:
    if estimate is None:
        return "-"
    shown = form.format(factor * estimate.value)
    if not errors or estimate.error is None:
        return shown
    return f"{shown} ± {form.replace('+', '').format(factor * estimate.error)}"


def _several(form: str, factor: float, *estimates: Estimate | None) -> str:
    if all(estimate is None for estimate in estimates):
        return "-"
    return " ".join(_figure(estimate, form, factor, errors=False) for estimate in estimates)
