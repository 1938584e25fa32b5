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

from inf_llm.kernels import swapped
from inf_llm.kernels.band import Band, additive_mask
from inf_llm.kernels.scoring import Scoring


def available() -> bool:
    """Whether this torch has the kernel."""
    return hasattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu")


def why_not(scoring: Scoring, q: Tensor, *others: Tensor) -> str | None:
    """Why this cannot be computed here, or None if it can."""
    if q.device.type != "cpu":
        return f"does not run on {q.device.type}"
    if not available():
        return "needs a torch that has fused attention for CPUs"
    return "does not cap scores" if scoring.softcap is not None else None


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
    """Mass each key receives, see `inf_llm.kernels.received`."""
    return swapped.received(attend, q, k, lse, scoring, band)
