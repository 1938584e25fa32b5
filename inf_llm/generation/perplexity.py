"""Mean negative log-likelihood by position: does a model survive past its trained length?

The text is read once, in chunks, each token predicted from all that the attention type keeps of
those before it. Logits are turned into likelihoods a few rows at a time, so that neither a long
text nor a large vocabulary needs much memory.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from inf_llm.errors import TextError
from inf_llm.generation.session import Progress, empty_cache, execution_block, feed_length

FIRST_EDGE = 256
SHORT = 512
"""Positions below this are the short range that others are compared with."""
LOGITS_BYTES = 1 << 28
"""Memory that the logits of one feed may take, counted as float32."""
ROWS = 128
"""Rows of logits turned into likelihoods at a time."""


@dataclass(frozen=True)
class Bucket:
    """Tokens whose position is in [start, end).

    Attributes:
        start, end: positions; the first token has 0 and is predicted from nothing, so not counted.
        tokens: number of tokens counted.
        nll: mean negative log-likelihood in nats.
    """

    start: int
    end: int
    tokens: int
    nll: float


@dataclass(frozen=True)
class Perplexity:
    """What `measure_perplexity` found.

    Attributes:
        buckets: by position: 0-256, 256-512, 512-1k, 1k-2k, ..., the last one cut by the text.
        tokens: tokens counted.
        nll: mean over all of them, in nats.
        short: mean over positions below 512.
        seconds: time it took.
    """

    buckets: tuple[Bucket, ...]
    tokens: int
    nll: float
    short: float
    seconds: float

    @property
    def ratio(self) -> float:
        """The last bucket against the short range: about 1 where the model survives."""
        return self.buckets[-1].nll / self.short


@torch.no_grad()
def measure_perplexity(
    model: Any, ids: Sequence[int], chunk_size: int = 8192, on_progress: Progress | None = None
) -> Perplexity:
    """Mean negative log-likelihood of a text by position, for a model of any attention type.

    Args:
        model: a causal language model, patched or not.
        ids: the text.
        chunk_size: most tokens fed at a time; fewer are where the vocabulary is large.
        on_progress: called with tokens done and tokens in all.

    Raises:
        TextError: fewer than two tokens.
    """
    if len(ids) < 2:
        raise TextError("the text has fewer than two tokens: there is nothing to predict")
    started = time.perf_counter()
    sums: dict[int, float] = {}
    counts: dict[int, int] = {}
    for start, nll in _chunks(model, ids, chunk_size):
        for index, part in _by_bucket(start, nll):
            sums[index] = sums.get(index, 0.0) + float(part.sum())
            counts[index] = counts.get(index, 0) + len(part)
        if on_progress is not None:
            on_progress(min(start + len(nll), len(ids)), len(ids))
    buckets = tuple(
        Bucket(
            bucket_start(index), _end(index, len(ids)), counts[index], sums[index] / counts[index]
        )
        for index in sorted(sums)
    )
    short = [index for index in sums if bucket_start(index) < SHORT]
    return Perplexity(
        buckets,
        sum(counts.values()),
        sum(sums.values()) / sum(counts.values()),
        sum(sums[i] for i in short) / sum(counts[i] for i in short),
        time.perf_counter() - started,
    )


def bucket_start(index: int) -> int:
    """First position of a bucket: 0, 256, 512, 1024, ..."""
    return FIRST_EDGE << (index - 1) if index else 0


def _end(index: int, tokens: int) -> int:
    return min(FIRST_EDGE << index, tokens)


def _chunks(model: Any, ids: Sequence[int], chunk_size: int) -> Iterator[tuple[int, Tensor]]:
    """Per feed: position of the first predicted token, and (n,) nats of it and those after."""
    cache = empty_cache(model)
    step = _step(model, chunk_size)
    for start in range(0, len(ids) - 1, step):
        feed = list(ids[start : min(start + step, len(ids) - 1)])
        inputs = torch.tensor([feed], device=model.device)
        logits = model(input_ids=inputs, past_key_values=cache, use_cache=True).logits[0]  # (n, V)
        targets = torch.tensor(ids[start + 1 : start + 1 + len(feed)], device=logits.device)
        yield start + 1, _nats(logits, targets)


def _nats(logits: Tensor, targets: Tensor) -> Tensor:
    """Negative log-likelihood (n,) of targets (n,) under logits (n, V), in float64."""
    parts = [
        torch.nn.functional.cross_entropy(rows.float(), wanted, reduction="none").double()
        for rows, wanted in zip(logits.split(ROWS), targets.split(ROWS), strict=True)
    ]
    return torch.cat(parts).cpu()


def _by_bucket(start: int, nll: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Cut the values of positions `start`, `start + 1`, ... where buckets end."""
    position, end = start, start + len(nll)
    while position < end:
        index = (position // FIRST_EDGE).bit_length()
        stop = min(FIRST_EDGE << index, end)
        yield index, nll[position - start : stop - start]
        position = stop


def _step(model: Any, chunk_size: int) -> int:
    vocabulary = model.config.get_text_config(decoder=True).vocab_size
    rows = LOGITS_BYTES // (4 * vocabulary)
    return feed_length(model, max(1, min(chunk_size, max(rows, execution_block(model)))))
