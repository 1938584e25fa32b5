"""Needle tasks by the name of their family."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from inf_llm.checks import require
from inf_llm.needles.base import Family, Sample
from inf_llm.variants import NEEDLE


def family(name: str) -> Family:
    """The family of this name.

    Raises:
        SettingsError: there is none, with the nearest one; or the row is no family.
    """
    found: Family = NEEDLE.get(name)
    message = f"needle family {name!r} is {found!r:.60}: an object of a Family is needed"
    require(isinstance(found, Family), name, message)
    return found


def build(
    name: str,
    tokenizer: Any,
    haystack: str | None = None,
    length: int = 4096,
    depth: float = 0.5,
    seed: int = 0,
) -> Sample:
    """A sample of the family `name`; see `Family.build` for the arguments."""
    return family(name).build(tokenizer, haystack, length, depth, seed)


def build_many(
    name: str,
    tokenizer: Any,
    haystack: str | None = None,
    length: int = 4096,
    depths: Sequence[float] = (0.0, 0.25, 0.5, 0.75, 1.0),
    seed: int = 0,
) -> list[Sample]:
    """One sample a depth, each with its own needle and its own seed from `seed` on."""
    return [
        build(name, tokenizer, haystack, length, depth, seed + i) for i, depth in enumerate(depths)
    ]


def even_depths(n: int) -> list[float]:
    """`n` depths from 0 to 1, evenly spread; one alone is the middle."""
    return [0.5] if n == 1 else [i / (n - 1) for i in range(n)]
