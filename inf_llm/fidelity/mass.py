"""The attention mass that tokens and blocks receive under full attention."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from inf_llm.attention.base import Rule


def true_mass(q: Tensor, k: Tensor, first: int, rule: Rule) -> Tensor:
    """Probabilities of causal softmax attention over all keys.

    Args:
        q: queries (B, H, L, D), rotated to their positions `first`, `first + 1`, ...
        k: keys (B, G, N, D) of the whole text so far, rotated to theirs.
        first: position of the first query.
        rule: how the model scores.

    Returns:
        (B, H, L, N) in float32; what a learned sink takes is missing from their sum.
    """
    G, (L, N) = k.shape[1], (q.shape[2], k.shape[2])
    grouped = q.unflatten(1, (G, -1)).flatten(2, 3).float() * rule.scoring.scale
    scores = (grouped @ k.float().transpose(-1, -2)).unflatten(2, (-1, L)).flatten(1, 2)
    cap = rule.scoring.softcap
    if cap is not None:
        scores = cap * torch.tanh(scores / cap)
    at = torch.arange(N, device=k.device)
    future = at > torch.arange(first, first + L, device=k.device)[:, None]
    scores.masked_fill_(future, -math.inf)
    lse = scores.logsumexp(-1, keepdim=True)
    if rule.learned_sink is not None:
        lse = torch.logaddexp(lse, rule.learned_sink.float().view(1, -1, 1, 1))
    return scores.sub_(lse).exp_()


def block_mass(mass: Tensor, first: int, size: int, count: int) -> Tensor:
    """Mass of `count` blocks of `size` tokens, the oldest from token `first` on: (B, H, count).

    `mass` is (B, H, L, N); queries are added up.
    """
    part = mass[..., first : first + count * size].sum(2)
    return part.unflatten(2, (count, size)).sum(3)


def heaviest(mass: Tensor, choosers: int, wanted: int) -> Tensor:
    """The blocks of most mass (B, X, wanted), ascending, for X choosers among the query heads.

    `mass` is (B, H, blocks); neighbouring heads choose together.
    """
    own = mass.unflatten(1, (choosers, -1)).sum(2)
    return own.topk(min(wanted, own.shape[2]), dim=2).indices.sort(dim=2).values
