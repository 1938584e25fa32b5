"""Attention on a CPU through torch's fused kernel, the only one there that returns its lse.

About three times as fast as two matrix products with a softmax between them, and it never holds a
(queries x keys) matrix of scores. What it cannot do (soft-capped scores, gradients) is left to the
reference.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from inf_llm.kernels.band import Band, additive_mask
from inf_llm.kernels.scoring import Scoring

_FEW_QUERIES = 16  # below this the mass is cheaper as one matrix product


def available() -> bool:
    """Whether this torch has the kernel."""
    return hasattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu")


def _flash(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float
) -> tuple[Tensor, Tensor]:
    flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    return flash(q, k, v, 0.0, False, attn_mask=mask, scale=scale)


def _same_width(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Zero-padded so that keys and values have one head size, as the kernel wants."""
    wide = max(q.shape[-1], v.shape[-1])
    if q.shape[-1] == v.shape[-1]:
        return q, k, v
    q, k, v = (F.pad(x, (0, wide - x.shape[-1])) for x in (q, k, v))
    return q, k, v


def attend(
    q: Tensor, k: Tensor, v: Tensor, scoring: Scoring, band: Band | None = None
) -> tuple[Tensor, Tensor]:
    """Softmax attention, see `inf_llm.kernels.attend`."""
    B, H, Q, _ = q.shape
    G, K, Dv = k.shape[1], k.shape[2], v.shape[-1]
    q, k, v = _same_width(q, k, v)
    if band is None and Q == 1:
        # Heads that share a key head become its queries: each key is read once, not H/G times.
        o, lse = _flash(q.reshape(B, G, H // G, -1), k, v, None, scoring.scale)
        return o.reshape(B, H, 1, -1)[..., :Dv], lse.reshape(B, H, 1)
    mask = None if band is None else additive_mask(band, Q, K, q.dtype, q.device)
    o, lse = _flash(q, k, v, mask, scoring.scale)
    blind = None if band is None else band.sees_nothing(Q, K, q.device)
    if blind is not None:
        lse = lse.masked_fill(blind, -math.inf)
    return o[..., :Dv], lse


def received(
    q: Tensor, k: Tensor, lse: Tensor, scoring: Scoring, band: Band | None = None
) -> Tensor:
    """Mass each key receives, by the same kernel with the roles swapped.

    Keys ask and queries answer: if query i brings ``q_i * scale`` and ``-lse_i`` in two more
    dimensions (high and low part, for half precision) and a key brings ones there, the log-sum-exp
    over queries is the logarithm of the mass. No (queries x keys) matrix is made.
    """
    B, H, Q, D = q.shape
    G, K = k.shape[1], k.shape[2]
    if Q <= _FEW_QUERIES and band is None:
        scores = torch.matmul(q.reshape(B, G, -1, D), k.transpose(-1, -2)).view(B, H, Q, K)
        return torch.exp(scores.float() * scoring.scale - lse[..., None]).sum(2)
    fill = -(D + 2) % 8
    high = lse.to(q.dtype)
    low = (lse - high.float()).to(q.dtype)
    answers = torch.cat(
        (q * scoring.scale, -high[..., None], -low[..., None], q.new_zeros(B, H, Q, fill)), -1
    )
    ones = k.new_ones(1, 1, 1, 1).expand(B, G, K, 2)
    asks = torch.cat((k, ones, k.new_zeros(1, 1, 1, 1).expand(B, G, K, fill)), -1)
    asks = asks.unsqueeze(2).expand(B, G, H // G, K, -1).reshape(B, H, K, -1)
    mask = None
    if band is not None:
        mask = _transposed_mask(band, Q, K, q.dtype, q.device)
    log_mass = _flash(asks, answers, answers, mask, 1.0)[1]
    mass = log_mass.exp()
    unseen = None if band is None else _seen_by_none(band, Q, K, q.device)
    return mass if unseen is None else mass.masked_fill(unseen, 0.0)


def _transposed_mask(
    band: Band, queries: int, keys: int, dtype: torch.dtype, device: torch.device
) -> Tensor:
    return additive_mask(band, queries, keys, dtype, device).t().contiguous()


def _seen_by_none(band: Band, queries: int, keys: int, device: torch.device) -> Tensor:
    """Which keys (keys,) no query sees; the swapped kernel would report a mass of 1 for them."""
    key = torch.arange(keys, device=device)
    first, last = key + band.near - band.offset, queries - 1
    unseen = first > last
    if band.far is not None:
        unseen |= key + band.far - band.offset <= 0
    return unseen
