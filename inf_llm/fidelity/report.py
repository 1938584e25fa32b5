"""Table of the results of a run, for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from inf_llm.fidelity.statistics import LEAST_GAP, Estimate
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
        f"{LEAST_GAP:g} nat has no share"
    )
    made.add_column("task", no_wrap=True)
    made.add_column("rule", overflow="fold")
    for name, unit in _HEADS:
        made.add_column(f"{name}\n{unit}", justify="right", no_wrap=True)
    task = None
    for each in summaries:
        if each.task != task:
            made.add_section()
        made.add_row(_task(each) if each.task != task else "", each.rule, *_cells(each))
        task = each.task
    return made


def _task(each: Summary) -> str:
    gap = "" if each.gap is None else f", gap {each.gap:.2f}"
    return f"{each.task}\nn = {each.questions} in {each.contexts}{gap}"


def _cells(each: Summary) -> list[str]:
    return [
        _figure(each.nll, "{:.2f}"),
        _figure(each.worse, "{:+.2f}"),
        _figure(each.closed, "{:.0f}", 100),
        _figure(each.exact, "{:.0f}", 100, errors=False),
        _figure(each.right, "{:.0f}", 100, errors=False),
        _several("{:.2f}", 1, each.kl_question, each.kl_answer, each.kl_prose),
        _several("{:.0f}", 100, each.far, each.needle),
        _several("{:.0f}", 100, each.best_far, each.best_needle),
    ]


def _figure(found: Estimate | None, form: str, factor: float = 1, errors: bool = True) -> str:
    if found is None:
        return "-"
    shown = form.format(factor * found.value)
    if not errors or found.error is None:
        return shown
    return f"{shown} ± {form.replace('+', '').format(factor * found.error)}"


def _several(form: str, factor: float, *found: Estimate | None) -> str:
    if all(each is None for each in found):
        return "-"
    return " ".join(_figure(each, form, factor, errors=False) for each in found)
