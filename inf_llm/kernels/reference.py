"""A simple attention kernel for all devices, which all other kernels are tested against."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from inf_llm.kernels.band import Band
from inf_llm.kernels.scoring import Scoring

BY_NAME_ONLY = True  # `auto` takes it only if no other kernel supports the inputs


def why_not(scoring: Scoring, *inputs: Tensor) -> str | None:
    """Return None, because the reference supports all inputs."""
    return None


def _logits(q: Tensor, k: Tensor, scoring: Scoring, band: Band | None) -> Tensor:
    """Return float32 scores (B, G, R, Q, K), R = H / G query heads per key head; -inf if hidden."""
    B, H, Q, D = q.shape
    G, K = k.shape[1], k.shape[2]
    grouped = q.reshape(B, G, H // G, Q, D).float()
    scores = torch.matmul(grouped, k.float().unsqueeze(2).transpose(-1, -2)) * scoring.scale
    if scoring.softcap is not None:
        scores = scoring.softcap * torch.tanh(scores / scoring.softcap)
    if band is not None:
        scores = scores.masked_fill(~band.visible(Q, K, q.device), -math.inf)
    return scores


def attend(
    q: Tensor, k: Tensor, v: Tensor, scoring: Scoring, band: Band | None = None
) -> tuple[Tensor, Tensor]:
    """Compute softmax attention; see `inf_llm.kernels.attend`."""
    B, H, Q, _ = q.shape
    scores = _logits(q, k, scoring, band)
    lse = torch.logsumexp(scores, -1)  # (B, G, R, Q)
    weights = torch.exp(scores - lse.masked_fill(lse == -math.inf, 0.0)[..., None])
    o = torch.matmul(weights, v.float().unsqueeze(2))
    return o.reshape(B, H, Q, v.shape[-1]).to(q.dtype), lse.reshape(B, H, Q)


def received(
    q: Tensor, k: Tensor, lse: Tensor, scoring: Scoring, band: Band | None = None
) -> Tensor:
    """Return the mass that each key receives; see `inf_llm.kernels.received`."""
    B, H, Q, _ = q.shape
    scores = _logits(q, k, scoring, band)
    mass = torch.exp(scores - lse.view(B, k.shape[1], -1, Q, 1).float()).sum(-2)
    return mass.reshape(B, H, k.shape[2])
