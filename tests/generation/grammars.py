"""Answers under a grammar, of a model that knows nothing."""

from __future__ import annotations

import torch

from inf_llm.generation.grammar import Constraint, Grammar, Grammars
from tests.tiny import tiny_tokenizer

EXTRA = 5
"""Scores that a model has more than its tokenizer has tokens."""
TOKENIZER = tiny_tokenizer()
PROMPT = [7, 7]


def made() -> Grammars:
    """Grammars for the tiny tokenizer."""
    return Grammars(TOKENIZER, len(TOKENIZER), [TOKENIZER.eos_token_id])


def drawn(grammar: Grammar, seed: int, longest: int = 3000) -> tuple[list[int], Constraint]:
    """At most `longest` tokens that are drawn, behind a prompt."""
    generator = torch.Generator().manual_seed(seed)
    ids, constraint = torch.tensor([PROMPT]), grammar.constraint(len(PROMPT), longest)
    while ids.shape[1] < len(PROMPT) + longest:
        scores = constraint(ids, torch.randn(1, len(TOKENIZER) + EXTRA, generator=generator))
        token = torch.multinomial(scores.softmax(-1), 1, generator=generator)
        ids = torch.cat((ids, token), 1)
        if constraint.over(ids, scores).item():
            break
    return ids[0, len(PROMPT) :].tolist(), constraint
