"""Attention on a CPU with torch's fused kernel: torch's only CPU attention that returns an lse.

It is about three times as fast as two matrix products with a softmax between them, and it never
holds a (queries x keys) matrix of scores. Soft-capped scores and gradients are not supported; the
reference computes these. A single query has few scores, so one softmax over all scores is even
faster.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from inf_llm.kernels import swapped
from inf_llm.kernels.band import Band, additive_mask
from inf_llm.kernels.scoring import Scoring
from inf_llm.kernels.source import Source
from inf_llm.native import loops


def available() -> bool:
    """Return whether this version of torch has the kernel."""
    return hasattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu")


def why_not(scoring: Scoring, q: Tensor, *others: Tensor) -> str | None:
    """Return why this kernel cannot compute the inputs, or None if it can."""
    if q.device.type != "cpu":
        return f"does not run on {q.device.type}"
    if not available():
        return "needs a torch that has fused attention for CPUs"
    return "does not cap scores" if scoring.softcap is not None else None


def _flash(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float
) -> tuple[Tensor, Tensor]:
    flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    # The kernel assumes a stride of 1 in the last dimension.
    q, k, v = (x if x.stride(-1) == 1 else x.contiguous() for x in (q, k, v))
    return flash(q, k, v, 0.0, False, attn_mask=mask, scale=scale)


def _same_width(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Pad with zeros so that keys and values have the same head size, as the kernel requires."""
    wide = max(q.shape[-1], v.shape[-1])
    if q.shape[-1] == v.shape[-1]:
        return q, k, v
    q, k, v = (F.pad(x, (0, wide - x.shape[-1])) for x in (q, k, v))
    return q, k, v


def attend(
    q: Tensor, k: Tensor, v: Tensor, scoring: Scoring, band: Band | None = None
) -> tuple[Tensor, Tensor]:
    """Compute softmax attention; see `inf_llm.kernels.attend`."""
    B, H, Q, _ = q.shape
    G, K, Dv = k.shape[1], k.shape[2], v.shape[-1]
    q, k, v = _same_width(q, k, v)
    if band is None and Q == 1:
        # Query heads that share a key head become queries: each key is read once, not H/G times.
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
    """Return the mass that each key receives; see `inf_llm.kernels.received`."""
    return swapped.received(attend, q, k, lse, scoring, band)


def joins(source: Source, learned_sink: Tensor | None) -> bool:
    """Return whether `attend_jointly` can compute this: single queries, no learned sinks.

    With torch in half precision, `attend_jointly` would round intermediate results; the fused
    kernel does not.
    """
    single = source.q.shape[2] == 1 and source.band is None and learned_sink is None
    exact = source.q.dtype == torch.float32 or loops.attends(source.q, *source.pieces[0])
    return single and exact


def attend_jointly(
    sources: Iterable[Source], scoring: Scoring
) -> tuple[Tensor, list[Tensor | None]]:
    """Compute one softmax over all sources; see `inf_llm.kernels.attend_jointly`."""
    sources = list(sources)
    assert sources, "a softmax needs a source"
    assert all(source.band is None for source in sources), "a single query sees all that is given"
    pieces = [(source.q, k, v) for source in sources for k, v in source.pieces]
    in_c = all(loops.attends(*piece) for piece in pieces)
    o, weights = (loops.attend if in_c else _attend_together)(pieces, scoring.scale)
    masses, first = [], 0
    for source in sources:
        last = first + sum(k.shape[2] for k, _ in source.pieces)
        masses.append(weights[:, :, first:last] if source.needs_mass else None)
        first = last
    return o.to(sources[0].q.dtype), masses


def _attend_together(pieces: Sequence[loops.Piece], scale: float) -> tuple[Tensor, Tensor]:
    """Compute `loops.attend` with torch."""
    B, H, _, D = pieces[0][0].shape
    scores = []
    for q, k, _ in pieces:
        grouped = q.reshape(-1, H // k.shape[1], D)  # (B * G, H / G, D)
        scores.append(torch.bmm(grouped, k.flatten(0, 1).transpose(1, 2)).view(B, H, -1))
    weights = torch.cat(scores, 2).mul_(scale).softmax(2)  # (B, H, keys of all pieces)
    o, first = weights.new_zeros(B, H, 1, pieces[0][2].shape[3]), 0
    for _, _, v in pieces:
        G, K, width = v.shape[1:]
        grouped = weights[:, :, first : first + K].view(B * G, H // G, K)
        o.view(B * G, H // G, width).baddbmm_(grouped, v.flatten(0, 1))
        first += K
    return o, weights
