"""Log-likelihoods of tokens under the logits of a model, before any logits processor."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from inf_llm.generation.prefill import feed
from inf_llm.generation.session import Session

ROWS = 128
"""Number of rows of logits that are converted to log-likelihoods at a time."""


@dataclass(frozen=True)
class Scored:
    """A token and the prediction at its position.

    Attributes:
        token: id of the token.
        logprob: log-likelihood of the token in nats; None for the first token of a text.
        top: ids and log-likelihoods of the likeliest tokens at this position, the likeliest first.
    """

    token: int
    logprob: float | None
    top: tuple[tuple[int, float], ...] = ()


def scored(logits: Tensor, tokens: Sequence[int], top: int) -> Iterator[Scored]:
    """Score tokens under logits (n, V), with the `top` likeliest tokens at each position.

    Yields:
        The score of each token.
    """
    for first in range(0, len(tokens), ROWS):
        part = tokens[first : first + ROWS]
        rows = logits[first : first + ROWS].float().log_softmax(-1)
        logprobs = rows.gather(1, torch.tensor(part, device=rows.device)[:, None])[:, 0].tolist()
        best, ids = rows.topk(min(top, rows.shape[1]))
        for token, logprob, *likeliest in zip(
            part, logprobs, ids.tolist(), best.tolist(), strict=True
        ):
            yield Scored(token, logprob, tuple(zip(*likeliest, strict=True)))


class PromptScores:
    """Scores of the tokens of a prompt, collected while a session reads the prompt.

        scores = PromptScores(ids, top=5)
        for fed in session.reading(ids, scores.on_logits):
            ...
        tokens = scores.finish(session.fork())

    Args:
        ids: token ids of the prompt.
        top: number of likeliest tokens at each position.
    """

    def __init__(self, ids: Sequence[int], top: int) -> None:
        self._ids, self._top = ids, top
        self._scored = [Scored(ids[0], None)]

    def on_logits(self, logits: Tensor) -> None:
        """Score the tokens after the next n fed tokens, whose logits are (1, n, V)."""
        done = len(self._scored)
        following = self._ids[done : done + logits.shape[1]]
        self._scored += scored(logits[0, : len(following)], following, self._top)

    @torch.no_grad()
    def finish(self, fork: Session) -> list[Scored]:
        """Feed the rest of the prompt and return the scores of all its tokens.

        The last token is not fed: its logits predict no token of the prompt. The last execution
        block then has the same tokens as in `measure_perplexity`.

        Args:
            fork: fork of the session that has fed whole execution blocks; the fork feeds the rest.
        """
        rest = self._ids[fork.fed : -1]
        if rest:
            self.on_logits(feed(fork.model, fork.tensor(rest), fork.cache, logits=0))
        return self._scored
