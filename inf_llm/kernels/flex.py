"""Attention through torch's flex_attention, which also caps scores; asked for by name only.

On a GPU it is compiled, which takes its time at every new shape; NOT YET RUN THERE. On a CPU it
runs as it is, exact and slow. Computes no gradients.
"""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from inf_llm.kernels.band import Band
from inf_llm.kernels.scoring import Scoring

BY_NAME_ONLY = True
ScoreMod = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]


def why_not(scoring: Scoring, q: Tensor, *others: Tensor) -> str | None:
    """Why this cannot be computed here, or None if it can; scores of any kind can."""
    try:
        from torch.nn.attention.flex_attention import AuxRequest  # noqa: F401
    except ImportError:
        return "needs torch 2.9 or later"
    return None


def attend(
    q: Tensor, k: Tensor, v: Tensor, scoring: Scoring, band: Band | None = None
) -> tuple[Tensor, Tensor]:
    """Softmax attention, see `inf_llm.kernels.attend`."""
    return _flex(q, k, v, scoring.scale, _capped(scoring), band)


def received(
    q: Tensor, k: Tensor, lse: Tensor, scoring: Scoring, band: Band | None = None
) -> Tensor:
    """Mass each key receives, see `inf_llm.kernels.received`: keys ask, queries answer.

    With ``-lse_i`` added to the scores of query i, the log-sum-exp over the queries is the
    logarithm of the mass.
    """
    H, Q = q.shape[1:3]
    capped, lse = _capped(scoring), lse.float().contiguous()

    def mass(score: Tensor, b: Tensor, h: Tensor, key: Tensor, query: Tensor) -> Tensor:
        score = score if capped is None else capped(score, b, h, key, query)
        return score - lse[b, h, query]

    turned = None if band is None else band.turned(Q)
    asks = k.repeat_interleave(H // k.shape[1], 1)
    return _flex(asks, q, q, scoring.scale, mass, turned)[1].exp()


def _capped(scoring: Scoring) -> ScoreMod | None:
    cap = scoring.softcap
    if cap is None:
        return None

    def capped(score: Tensor, b: Tensor, h: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return cap * torch.tanh(score / cap)

    return capped


def _flex(
    q: Tensor, k: Tensor, v: Tensor, scale: float, change: ScoreMod | None, band: Band | None
) -> tuple[Tensor, Tensor]:
    from torch.nn.attention.flex_attention import AuxRequest

    Q, K = q.shape[2], k.shape[2]
    mask = None if band is None else _mask(band, Q, K, q.device)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is not compiled, on a CPU
        o, aux = _function(q.is_cuda)(
            q,
            k,
            v,
            score_mod=change,
            block_mask=mask,
            scale=scale,
            enable_gqa=q.shape[1] != k.shape[1],
            return_aux=AuxRequest(lse=True),
        )
    blind = None if band is None else band.sees_nothing(Q, K, q.device)
    return o, aux.lse if blind is None else aux.lse.masked_fill(blind, -math.inf)


@functools.cache
def _function(compiled: bool) -> Any:
    from torch.nn.attention.flex_attention import flex_attention

    function: Any = flex_attention
    return torch.compile(function) if compiled else function


@functools.lru_cache(maxsize=8)
def _mask(band: Band, queries: int, keys: int, device: torch.device) -> Any:
    """The rule as flex_attention takes it. Execution blocks repeat, so a few are kept."""
    from torch.nn.attention.flex_attention import create_block_mask

    far = band.offset + queries if band.far is None else band.far

    def seen(b: Tensor, h: Tensor, query: Tensor, key: Tensor) -> Tensor:
        distance = query + band.offset - key
        return (distance >= band.near) & (distance < far)

    return create_block_mask(seen, None, None, queries, keys, device=device)
