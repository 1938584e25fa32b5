"""Needle tasks by the name of their family."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from inf_llm.checks import require
from inf_llm.needles.base import Family, Sample
from inf_llm.variants import NEEDLE


def family(name: str) -> Family:
    """Return the family with this name.

    Raises:
        SettingsError: there is no such family, and the message names the nearest one; or the
            registered object is not a `Family`.
    """
    row: Family = NEEDLE.get(name)
    message = f"needle family {name!r} is {row!r:.60}: an object of a Family is needed"
    require(isinstance(row, Family), name, message)
    return row


def build(
    name: str,
    tokenizer: Any,
    haystack: str | None = None,
    length: int = 4096,
    depth: float = 0.5,
    seed: int = 0,
) -> Sample:
    """Make a sample of the family `name`; see `Family.build` for the arguments."""
    return family(name).build(tokenizer, haystack, length, depth, seed)


def build_many(
    name: str,
    tokenizer: Any,
    haystack: str | None = None,
    length: int = 4096,
    depths: Sequence[float] = (0.0, 0.25, 0.5, 0.75, 1.0),
    seed: int = 0,
) -> list[Sample]:
    """Make one sample per depth, each with its own needle; the seeds count up from `seed`."""
    return [
        build(name, tokenizer, haystack, length, depth, seed + i) for i, depth in enumerate(depths)
    ]


def even_depths(n: int) -> list[float]:
    """Return `n` evenly spaced depths from 0 to 1; a single depth is 0.5."""
    return [0.5] if n == 1 else [i / (n - 1) for i in range(n)]
