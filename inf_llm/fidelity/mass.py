"""The attention mass that tokens and blocks receive under full attention."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from inf_llm.attention.base import Rule


def true_mass(q: Tensor, k: Tensor, first: int, rule: Rule) -> Tensor:
    """Return the probabilities of causal softmax attention over all keys.

    Args:
        q: queries (B, H, L, D), rotated to their positions `first`, `first + 1`, ...
        k: keys (B, G, N, D) of the whole text so far, rotated to their positions.
        first: position of the first query.
        rule: the scoring of the model: scale, softcap and learned sink.

    Returns:
        (B, H, L, N) in float32; the share of a learned sink is missing from the sum over keys.
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
    """Return the mass (B, H, count) of `count` blocks of `size` tokens from token `first` on.

    `mass` is (B, H, L, N); it is summed over queries.
    """
    part = mass[..., first : first + count * size].sum(2)
    return part.unflatten(2, (count, size)).sum(3)


def heaviest(mass: Tensor, choosers: int, wanted: int) -> Tensor:
    """Return the `wanted` blocks of most mass (B, X, wanted), in ascending order, per chooser.

    A chooser is a group of neighbouring query heads with one common selection. `mass` is
    (B, H, blocks) and is summed over the heads of each of the X choosers.
    """
    sums = mass.unflatten(1, (choosers, -1)).sum(2)
    return sums.topk(min(wanted, sums.shape[2]), dim=2).indices.sort(dim=2).values
