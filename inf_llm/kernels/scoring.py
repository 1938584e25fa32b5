"""How a score is made from a query and a key; part of every call of a kernel."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Scoring:
    """The model's own way to score.

    Attributes:
        scale: factor on q.k.
        softcap: scores become ``softcap * tanh(score / softcap)`` where it is set (Gemma 2).
        kernel: which kernel computes: a row of `inf_llm.variants.KERNEL`, "auto" for the first that
            can, or "flash" for any but the reference.
    """

    scale: float
    softcap: float | None = None
    kernel: str = "auto"
