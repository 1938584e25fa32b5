"""The attention mass that each key receives, computed by an attention kernel with swapped roles.

The keys take the role of queries, and the queries the role of keys. Query i is ``q_i * scale`` with
``-lse_i`` in two more dimensions (high and low part, for half precision); a key has ones in these
dimensions. Then the log-sum-exp over the queries is the logarithm of the mass. No (queries x keys)
matrix is made.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from inf_llm.kernels.band import Band
from inf_llm.kernels.scoring import Scoring

FEW_QUERIES = 16
"""Up to this number of queries, one matrix product is the cheaper way to compute the mass."""

Attend = Callable[[Tensor, Tensor, Tensor, Scoring, Band | None], tuple[Tensor, Tensor]]


def padded(width: int) -> int:
    """Return the extended width of a head, a multiple of 8 as kernels require."""
    return -(-(width + 2) // 8) * 8


def received(
    attend: Attend, q: Tensor, k: Tensor, lse: Tensor, scoring: Scoring, band: Band | None
) -> Tensor:
    """Return the mass that each key receives, computed with the `attend` of any kernel.

    See `inf_llm.kernels.received`. Scores must not be soft-capped.
    """
    B, H, Q, D = q.shape
    G, K = k.shape[1], k.shape[2]
    if Q <= FEW_QUERIES and band is None:
        scores = torch.matmul(q.reshape(B, G, -1, D), k.transpose(-1, -2)).view(B, H, Q, K)
        return torch.exp(scores.float() * scoring.scale - lse[..., None]).sum(2)
    fill = padded(D) - D - 2
    high = lse.to(q.dtype)
    low = (lse - high.float()).to(q.dtype)
    answers = torch.cat(
        (q * scoring.scale, -high[..., None], -low[..., None], q.new_zeros(B, H, Q, fill)), -1
    )
    ones = k.new_ones(1, 1, 1, 1).expand(B, G, K, 2)
    asks = torch.cat((k, ones, k.new_zeros(1, 1, 1, 1).expand(B, G, K, fill)), -1)
    asks = asks.unsqueeze(2).expand(B, G, H // G, K, -1).reshape(B, H, K, -1)
    turned = None if band is None else band.turned(Q)
    # For a key that no query sees, the log-sum-exp is -inf, so the mass is 0.
    return attend(asks, answers, answers, Scoring(1.0), turned)[1].exp()
