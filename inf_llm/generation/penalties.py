"""Penalties on tokens that an answer has already, which `generate` has no option for."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class AnswerPenalties:
    """A logits processor that lowers the scores of tokens by how often the answer has them.

    `repetition_penalty` of transformers counts the prompt too, and scales scores.

    Attributes:
        prompt: tokens before the answer.
        frequency: taken off for every time.
        presence: taken off once.
    """

    prompt: int
    frequency: float
    presence: float

    def __call__(self, ids: Tensor, scores: Tensor) -> Tensor:
        """Scores (B, V) for what follows ids (B, n)."""
        answer = ids[:, self.prompt :]
        counts = torch.zeros_like(scores)
        counts.scatter_add_(1, answer, torch.ones_like(answer, dtype=scores.dtype))
        return scores - self.frequency * counts - self.presence * (counts > 0)
