"""Penalties on tokens that an answer already contains, for which `generate` has no option."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class AnswerPenalties:
    """A logits processor that lowers the scores of tokens by their counts in the answer.

    In contrast, `repetition_penalty` of transformers also counts the prompt, and scales scores.

    Attributes:
        prompt: number of tokens before the answer.
        frequency: penalty for every occurrence of a token.
        presence: penalty once for a token that occurs.
    """

    prompt: int
    frequency: float
    presence: float

    def __call__(self, ids: Tensor, scores: Tensor) -> Tensor:
        """Return the scores (B, V) with penalties for the tokens of the answer in ids (B, L)."""
        answer = ids[:, self.prompt :]
        counts = torch.zeros_like(scores)
        counts.scatter_add_(1, answer, torch.ones_like(answer, dtype=scores.dtype))
        return scores - self.frequency * counts - self.presence * (counts > 0)
