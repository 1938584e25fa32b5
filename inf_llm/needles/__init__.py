"""Retrieval tasks of any length: a needle at a known place in a haystack of known size.

`build("passkey", tokenizer, length=4096, depth=0.5, seed=0)` returns a `Sample` whose context and
question are separate, so that one read of a context can serve several questions. The demo of the
command line and the benchmark share these families and their scorer.
"""

from __future__ import annotations

from inf_llm.needles.base import Family, Sample, token_counter
from inf_llm.needles.families import build, build_many, even_depths, family
from inf_llm.needles.scoring import exact_match, score

__all__ = [
    "Family",
    "Sample",
    "build",
    "build_many",
    "even_depths",
    "exact_match",
    "family",
    "score",
    "token_counter",
]
