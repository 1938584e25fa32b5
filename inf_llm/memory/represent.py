"""What stands for a block when blocks are compared with a query."""

from __future__ import annotations

import torch
from torch import Tensor


def most_attended_mean(k: Tensor, mass: Tensor, tokens: int) -> Tensor:
    """Mean unrotated key of the tokens of each block that received the most attention.

    The rule of InfLLM (Xiao et al., 2024), section 3.2, applied per query head. Where all tokens
    represent their block, query heads do not differ, and those of a key head share one mean.

    Args:
        k: keys of n blocks (B, G, n, block, D), unrotated.
        mass: attention mass their tokens received (B, H, n, block).
        tokens: how many tokens represent a block.

    Returns:
        Representatives (B, H, n, D), or (B, G, n, D) where they are shared, in k's dtype.
    """
    B, G, n, block, D = k.shape
    H = mass.shape[1]
    if tokens == block:
        return k.mean(3, dtype=torch.float32).to(k.dtype)
    best = mass.topk(tokens, dim=-1, sorted=False).indices  # (B, H, n, tokens)
    best = best.view(B, G, H // G, n, tokens, 1).expand(-1, -1, -1, -1, -1, D)
    keys = k.unsqueeze(2).expand(B, G, H // G, n, block, D).gather(4, best)
    return keys.mean(4, dtype=torch.float32).to(k.dtype).reshape(B, H, n, D)
