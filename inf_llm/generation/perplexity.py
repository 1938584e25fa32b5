"""Mean negative log-likelihood by position: does a model survive past its trained length?

The text is read once, in chunks, each token predicted from all that the attention type keeps of
those before it. A text is not equally hard everywhere, so the same tokens are also predicted from
short, fresh contexts of a few hundred tokens: what a model that survives does at least as well as.
Logits are turned into likelihoods a few rows at a time, so that neither a long
text nor a large vocabulary needs much memory.
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
"""Tokens in a fresh context; the latter half of them is predicted from at least half as many."""


@dataclass(frozen=True)
class Bucket:
    """Tokens whose position is in [start, end).

    Attributes:
        start, end: positions; the first token has 0 and is predicted from nothing, so not counted.
        tokens: number of tokens counted.
        nll: mean negative log-likelihood in nats.
        fresh: the same of the same tokens, predicted from fresh contexts of `FRESH` tokens.
    """

    start: int
    end: int
    tokens: int
    nll: float
    fresh: float

    @property
    def ratio(self) -> float:
        """Against fresh contexts: about 1 or less where the model survives so far."""
        return self.nll / self.fresh


@dataclass(frozen=True)
class Perplexity:
    """What `measure_perplexity` found.

    Attributes:
        buckets: by position: 0-256, 256-512, 512-1k, 1k-2k, ..., the last one cut by the text.
        whole: all tokens as one bucket.
        seconds: time it took.
    """

    buckets: tuple[Bucket, ...]
    whole: Bucket
    seconds: float

    @property
    def ratio(self) -> float:
        """The last bucket against fresh contexts: about 1 or less where the model survives."""
        return self.buckets[-1].ratio


@torch.no_grad()
def measure_perplexity(
    model: Any, ids: Iterable[int], chunk_size: int = 8192, on_progress: Progress | None = None
) -> Perplexity:
    """Mean negative log-likelihood of a text by position, for a model of any attention type.

    Args:
        model: a causal language model, patched or not.
        ids: the text; a list, a tensor or what a tokenizer returned.
        chunk_size: most tokens fed at a time; fewer are where the vocabulary is large.
        on_progress: called with tokens done and tokens in all.

    Raises:
        TextError: fewer than two tokens, or others than the model knows.
        SettingsError: `chunk_size` is no count.
    """
    count("chunk_size", chunk_size)
    require_callable("on_progress", on_progress)
    ids = known_ids(ids, vocabulary(model))
    if len(ids) < 2:
        raise TextError("the text has fewer than two tokens: there is nothing to predict")
    started = time.perf_counter()
    text = torch.tensor([ids], device=device_of(model))
    nll = torch.empty(len(ids) - 1, dtype=torch.float64)  # of token i + 1
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
    own = slice(max(0, start - 1), end - 1)
    return Bucket(start, end, len(nll[own]), float(nll[own].mean()), float(fresh[own].mean()))


def bucket_start(index: int) -> int:
    """First position of a bucket: 0, 256, 512, 1024, ..."""
    return FIRST_EDGE << (index - 1) if index else 0


def _nats(logits: Tensor, targets: Tensor) -> Tensor:
    """Negative log-likelihood (n,) of targets (n,) under logits (n, V), in float64."""
    parts = [
        torch.nn.functional.cross_entropy(rows.float(), wanted, reduction="none").double()
        for rows, wanted in zip(
            logits.split(ROWS), targets.to(logits.device).split(ROWS), strict=True
        )
    ]
    return torch.cat(parts).cpu()


def _fresh_nats(model: Any, text: Tensor) -> Tensor:
    """(N - 1,) nats of every token but the first, from contexts begun anew every `FRESH` / 2."""
    half = FRESH // 2
    nats = torch.empty(text.shape[1] - 1, dtype=torch.float64)
    for start in range(0, max(1, text.shape[1] - half), half):
        inputs = text[:, start : start + FRESH]
        logits = model(input_ids=inputs, use_cache=False).logits[0, :-1]
        first = half - 1 if start else 0
        end = start + inputs.shape[1] - 1
        nats[start + first : end] = _nats(logits[first:], inputs[0, 1 + first :])
    return nats
