"""The table of needle families: one line adds one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from inf_llm.needles.base import Family, Sample
from inf_llm.registry import Registry

_HERE = "inf_llm.needles"

FAMILIES = Registry(
    "needle family",
    {
        "passkey": f"{_HERE}.retrieval:PASSKEY",
        "number": f"{_HERE}.retrieval:NUMBER",
        "kv": f"{_HERE}.retrieval:KV",
        "lines": f"{_HERE}.retrieval:LINES",
        "niah_single_1": f"{_HERE}.niah:SINGLE_1",
        "niah_single_2": f"{_HERE}.niah:SINGLE_2",
        "niah_single_3": f"{_HERE}.niah:SINGLE_3",
        "niah_multikey_1": f"{_HERE}.niah:MULTIKEY_1",
        "niah_multikey_2": f"{_HERE}.niah:MULTIKEY_2",
        "niah_multikey_3": f"{_HERE}.niah:MULTIKEY_3",
        "niah_multivalue": f"{_HERE}.niah:MULTIVALUE",
        "niah_multiquery": f"{_HERE}.niah:MULTIQUERY",
        "vt": f"{_HERE}.aggregate:VT",
        "cwe": f"{_HERE}.aggregate:CWE",
        "fwe": f"{_HERE}.aggregate:FWE",
        "qa": f"{_HERE}.qa:QA",
    },
)


def family(name: str) -> Family:
    """The family of this name; an unknown one is answered with the nearest."""
    found: Family = FAMILIES.get(name)
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
