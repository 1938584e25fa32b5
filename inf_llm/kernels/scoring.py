"""The computation of a score from a query and a key; an argument of every kernel call."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Scoring:
    """The scoring parameters of a model, and the kernel to use.

    Attributes:
        scale: factor on q.k.
        softcap: if set, a score becomes ``softcap * tanh(score / softcap)`` (Gemma 2).
        kernel: a row of `inf_llm.variants.KERNEL`; "auto" for the first kernel that supports the
            inputs; or "flash" for the first one except the reference.
    """

    scale: float
    softcap: float | None = None
    kernel: str = "auto"
