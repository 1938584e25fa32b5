"""Mean negative log-likelihood by position: does a model still work past its trained length?

The text is read once, in chunks. Each token is predicted from all earlier tokens that the attention
type keeps. Some parts of a text are harder to predict than others. The same tokens are therefore
also predicted from short, fresh contexts of a few hundred tokens. A model that works past its
trained length predicts at least as well as from these contexts. Logits are converted to
log-likelihoods a few rows at a time, so that neither a long text nor a large vocabulary needs much
memory.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from inf_llm.checks import count, require_callable
from inf_llm.errors import TextError
from inf_llm.generation.likelihood import ROWS
from inf_llm.generation.prefill import (
    Progress,
    empty_cache,
    prefill,
    scored_length,
)
from inf_llm.generation.tokens import known_ids, vocabulary
from inf_llm.hf.decoder import device_of

FIRST_EDGE = 256
FRESH = 512
"""Tokens of a fresh context. Its second half is scored, so each of these tokens is predicted from
at least `FRESH` / 2 tokens; in the first context of a text all tokens but the first are scored."""


@dataclass(frozen=True)
class Bucket:
    """Tokens whose position is in [start, end).

    Attributes:
        start, end: positions. The first token, at position 0, has no prediction and is not counted.
        tokens: number of counted tokens.
        nll: mean negative log-likelihood in nats.
        fresh: mean of the same tokens when predicted from fresh contexts of `FRESH` tokens.
    """

    start: int
    end: int
    tokens: int
    nll: float
    fresh: float

    @property
    def ratio(self) -> float:
        """`nll` / `fresh`: about 1 or less if the model works at these positions."""
        return self.nll / self.fresh


@dataclass(frozen=True)
class Perplexity:
    """The result of `measure_perplexity`.

    Attributes:
        buckets: buckets of the positions 0-256, 256-512, 512-1k, 1k-2k, ...; the last one ends with
            the text.
        whole: all tokens as one bucket.
        seconds: time of the measurement.
    """

    buckets: tuple[Bucket, ...]
    whole: Bucket
    seconds: float

    @property
    def ratio(self) -> float:
        """`Bucket.ratio` of the last bucket: about 1 or less if the model works at this length."""
        return self.buckets[-1].ratio


@torch.no_grad()
def measure_perplexity(
    model: Any, ids: Iterable[int], chunk_size: int = 8192, on_progress: Progress | None = None
) -> Perplexity:
    """Measure the mean negative log-likelihood of a text by position, for any attention type.

    Args:
        model: a causal language model, patched or not.
        ids: token ids of the text: a list, a tensor or the output of a tokenizer.
        chunk_size: most tokens of one feed; a feed has fewer if the vocabulary is large.
        on_progress: called with the number of tokens done and the total number of tokens.

    Raises:
        TextError: the text has fewer than two tokens, or ids outside the model's vocabulary.
        SettingsError: `chunk_size` is not a positive whole number.
    """
    count("chunk_size", chunk_size)
    require_callable("on_progress", on_progress)
    ids = known_ids(ids, vocabulary(model))
    if len(ids) < 2:
        raise TextError("the text has fewer than two tokens: there is nothing to predict")
    started = time.perf_counter()
    text = torch.tensor([ids], device=device_of(model))
    nll = torch.empty(len(ids) - 1, dtype=torch.float64)  # index i: token i + 1
    done = 0
    for part, logits in prefill(
        model, text[:, :-1], empty_cache(model), scored_length(model, chunk_size), logits=0
    ):
        end = done + part.shape[1]
        nll[done:end] = _nats(logits[0], text[0, done + 1 : end + 1])
        done = end
        if on_progress is not None:
            on_progress(done + 1, len(ids))
    fresh = _fresh_nats(model, text)
    buckets: list[Bucket] = []
    while (start := bucket_start(len(buckets))) < len(ids):
        end = min(FIRST_EDGE << len(buckets), len(ids))
        buckets.append(_bucket(start, end, nll, fresh))
    whole = _bucket(0, len(ids), nll, fresh)
    return Perplexity(tuple(buckets), whole, time.perf_counter() - started)


def _bucket(start: int, end: int, nll: Tensor, fresh: Tensor) -> Bucket:
    span = slice(max(0, start - 1), end - 1)
    return Bucket(start, end, len(nll[span]), float(nll[span].mean()), float(fresh[span].mean()))


def bucket_start(index: int) -> int:
    """Return the first position of a bucket: 0, 256, 512, 1024, ..."""
    return FIRST_EDGE << (index - 1) if index else 0


def _nats(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the negative log-likelihoods (n,) of targets (n,) under logits (n, V), in float64."""
    parts = [
        torch.nn.functional.cross_entropy(rows.float(), wanted, reduction="none").double()
        for rows, wanted in zip(
            logits.split(ROWS), targets.to(logits.device).split(ROWS), strict=True
        )
    ]
    return torch.cat(parts).cpu()


def _fresh_nats(model: Any, text: Tensor) -> Tensor:
    """Return the negative log-likelihoods (N - 1,) of all tokens but the first, in fresh contexts.

    A fresh context begins every `FRESH` / 2 tokens.
    """
    half = FRESH // 2
    nats = torch.empty(text.shape[1] - 1, dtype=torch.float64)
    for start in range(0, max(1, text.shape[1] - half), half):
        inputs = text[:, start : start + FRESH]
        logits = model(input_ids=inputs, use_cache=False).logits[0, :-1]
        first = half - 1 if start else 0
        end = start + inputs.shape[1] - 1
        nats[start + first : end] = _nats(logits[first:], inputs[0, 1 + first :])
    return nats
