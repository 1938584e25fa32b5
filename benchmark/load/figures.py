"""Statistics of many answers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from benchmark.load.client import Answer

SHARES = 0.5, 0.95, 0.99


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value v such that at least `share` of the values are <= v."""
    ordered = sorted(values)
    return ordered[max(0, -int(-share * len(ordered) // 1) - 1)]


def spread(values: Iterable[float | None]) -> dict[str, float]:
    """Return p50, p95 and p99 of the values that are not None; empty if there are none."""
    known = [value for value in values if value is not None]
    if not known:
        return {}
    return {f"p{round(100 * share)}": round(percentile(known, share), 4) for share in SHARES}


def by_kind(answers: Sequence[Answer]) -> dict[str, dict[str, object]]:
    """Return per kind of client: number of answers, seconds to the first word and per token."""
    kinds = dict.fromkeys(answer.kind for answer in answers)
    groups = {kind: [answer for answer in answers if answer.kind == kind] for kind in kinds}
    return {
        kind: {
            "answers": len(group),
            "first word": spread(answer.first for answer in group),
            "per token": spread(answer.per_token for answer in group),
        }
        for kind, group in groups.items()
    }
