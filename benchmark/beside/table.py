"""A table of the rows: medians, and ratios to inf-llm on the same documents."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from benchmark.beside.subjects import OWN, SUBJECTS
from inf_llm.units import short

Row = dict[str, Any]
_HEAD = (
    "model",
    "tokens",
    "task",
    "subject",
    "first token, s",
    "second question, s",
    "decode, ms a token",
    "peak, MB",
    "nats a token",
    "found",
    "documents",
)
_RULE = "---|---:|---|---|---:|---:|---:|---:|---:|---:|---:"


def text(rows: Sequence[Row]) -> str:
    """Return a Markdown table, with the machines above it and the failures below it.

    A figure is a median over documents. For subjects other than inf-llm, the median ratio to
    inf-llm's figure on the same document follows in parentheses. After "cpu" stands that ratio for
    processor seconds, which other programs on the machine disturb less.
    """
    groups = _grouped(rows)
    lines = [_line(key, group, groups.get((*key[:3], OWN), [])) for key, group in groups.items()]
    machines = sorted({row["machine"] for row in rows})
    head = ["; ".join(machines), "", f"| {' | '.join(_HEAD)} |", f"|{_RULE}|"]
    return "\n".join([*head, *lines, *_notes(groups)])


def line(row: Row) -> str:
    """Return a short text for a row."""
    if problem := _problem(row):
        return problem
    first, decode = row["first"], 1e3 * row["decode"]
    return f"first token {first:.1f} s, {decode:.1f} ms a token, nats {row['nats']}"


def _grouped(rows: Iterable[Row]) -> dict[tuple[Any, ...], list[Row]]:
    """Return rows grouped and sorted by model, tokens, task and subject."""
    order = list(SUBJECTS)
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        key = row["model"], row["tokens"], row["task"], row["subject"]
        groups.setdefault(key, []).append(row)
    return dict(sorted(groups.items(), key=lambda g: (*g[0][:3], order.index(g[0][3]))))


def _line(key: tuple[Any, ...], rows: Sequence[Row], baseline: Sequence[Row]) -> str:
    model, tokens, task, subject = key
    cells = [model, short(tokens), task, f"`{subject}`"]
    reference = [] if subject == OWN else baseline
    slow = "more than 10x" if any(row.get("within") == "first" for row in rows) else ""
    cells.append(_median(rows, reference, "first", 1, 1) or slow)
    for name, scale, digits in (("second", 1, 1), ("decode", 1e3, 1), ("peak", 1e-6, 0)):
        cells.append(_median(rows, reference, name, scale, digits))
    cells.append(_nats(rows))
    hits = [hit for row in rows for hit in row.get("found", ())]
    cells += [f"{sum(hits)} of {len(hits)}" if hits else "", str(len(rows))]
    return f"| {' | '.join(cells)} |"


def _median(
    rows: Sequence[Row], baseline: Sequence[Row], name: str, scale: float, digits: int
) -> str:
    values = [row[name] for row in rows if row.get(name) is not None]
    if not values:
        return ""
    shown = f"{scale * statistics.median(values):,.{digits}f}"
    ratios = [
        f"{title}{statistics.median(found):.2g}x"
        for title, figure in (("", name), ("cpu ", f"{name}_cpu"))
        if (found := list(paired(rows, baseline, figure)))
    ]
    return f"{shown} ({', '.join(ratios)})" if ratios else shown


def paired(rows: Sequence[Row], baseline: Sequence[Row], name: str) -> Iterator[float]:
    """Yield the ratios of a figure to that of inf-llm on the same document."""
    by_run = {row["run"]: row.get(name) for row in baseline}
    for row in rows:
        if row.get(name) is not None and by_run.get(row["run"]):
            yield row[name] / by_run[row["run"]]


def _nats(rows: Sequence[Row]) -> str:
    values = [value for row in rows for value in row.get("nats", ())]
    if not values:
        return ""
    if None in values:
        return "not available"
    return f"{statistics.mean(values):.2f}"


def _problem(row: Row) -> str:
    """Return why a row is incomplete; empty if it is complete."""
    if "stopped" in row:
        return (
            f"stopped in phase {row['within']!r} after {row['stopped']:,.0f} s, which is more than "
            f"10 times what {OWN} took"
        )
    if "refused" in row:
        return f"refused: {row['refused']}"
    return str(row.get("error", ""))


def _notes(groups: dict[tuple[Any, ...], list[Row]]) -> list[str]:
    """Return lines that list each kind of problem once, with the places where it occurred."""
    problems: dict[str, list[str]] = {}
    for key, rows in groups.items():
        for problem in dict.fromkeys(filter(None, map(_problem, rows))):
            problems.setdefault(f"`{key[3]}` {problem}", []).append(
                f"{key[0]} {short(key[1])} {key[2]}"
            )
    return (
        ["", *(f"- {problem} ({', '.join(where)})" for problem, where in problems.items())]
        if problems
        else []
    )
