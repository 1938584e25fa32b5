"""How likely tokens were to a model: of its own scores, before anything changes them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from inf_llm.generation.prefill import feed
from inf_llm.generation.session import Session

ROWS = 128
"""Rows of logits turned into likelihoods at a time."""


@dataclass(frozen=True)
class Scored:
    """A token, and what was predicted where it stands.

    Attributes:
        token: its id.
        logprob: its log-likelihood in nats; None for the first token of a text.
        top: the likeliest tokens there with theirs, the likeliest first.
    """

    token: int
    logprob: float | None
    top: tuple[tuple[int, float], ...] = ()


def scored(logits: Tensor, tokens: Sequence[int], top: int) -> Iterator[Scored]:
    """Tokens under logits (n, V), with the `top` likeliest at each place."""
    for first in range(0, len(tokens), ROWS):
        part = tokens[first : first + ROWS]
        rows = logits[first : first + ROWS].float().log_softmax(-1)
        own = rows.gather(1, torch.tensor(part, device=rows.device)[:, None])[:, 0].tolist()
        best, ids = rows.topk(min(top, rows.shape[1]))
        for token, logprob, *likeliest in zip(part, own, ids.tolist(), best.tolist(), strict=True):
            yield Scored(token, logprob, tuple(zip(*likeliest, strict=True)))


class PromptScores:
    """Scores the tokens of a prompt while a session reads it.

        scores = PromptScores(ids, top=5)
        for fed in session.reading(ids, scores.hear):
            ...
        tokens = scores.finish(session.fork())

    Args:
        ids: the prompt.
        top: likeliest tokens listed at each place.
    """

    def __init__(self, ids: Sequence[int], top: int) -> None:
        self._ids, self._top = ids, top
        self._scored = [Scored(ids[0], None)]

    def hear(self, logits: Tensor) -> None:
        """The logits (1, n, V) of the next part that was fed."""
        done = len(self._scored)
        following = self._ids[done : done + logits.shape[1]]
        self._scored += scored(logits[0, : len(following)], following, self._top)

    @torch.no_grad()
    def finish(self, fork: Session) -> list[Scored]:
        """All tokens of the prompt.

        Args:
            fork: of the session, which has fed whole execution blocks; it feeds the rest, without
                the last token, for the last block of a text that ends there is without it too.
        """
        rest = self._ids[fork.fed : -1]
        if rest:
            self.hear(feed(fork.model, fork.tensor(rest), fork.cache, logits=0))
        return self._scored
