"""Attention masks that are defined by three numbers instead of a (queries x keys) matrix."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Band:
    """A mask: query i is at key index ``i + offset`` and sees keys at a distance in [near, far).

    Attributes:
        offset: key index of the first query.
        near: smallest visible distance.
        far: smallest distance beyond the visible ones; None for no limit.
    """

    offset: int
    near: int = 0
    far: int | None = None

    def visible(self, queries: int, keys: int, device: torch.device) -> Tensor:
        """Return the mask as a boolean matrix (queries, keys)."""
        key = torch.arange(keys, device=device)
        distance = torch.arange(queries, device=device)[:, None] + self.offset - key
        seen = distance >= self.near
        if self.far is not None:
            seen &= distance < self.far
        return seen

    def turned(self, queries: int) -> Band:
        """Return the same mask with swapped roles: the keys attend to the `queries` queries."""
        far = self.offset + queries if self.far is None else self.far  # beyond the farthest key
        return Band(-self.offset, 1 - far, 1 - self.near)

    def sees_nothing(self, queries: int, keys: int, device: torch.device) -> Tensor | None:
        """Return a boolean (queries,) of the queries that see no key; None if each sees a key.

        The log-sum-exp that kernels give for such queries differs (0, +inf, -inf or garbage), so
        it is replaced by -inf.
        """
        # Decided on the host: the first query has the smallest range, the last query the latest.
        last_start = -1 if self.far is None else queries - 1 + self.offset - self.far + 1
        if self.offset >= self.near and last_start < keys:
            return None
        newest = torch.arange(queries, device=device) + self.offset - self.near
        blind = newest < 0
        if self.far is not None:
            blind |= newest + self.near - self.far + 1 >= keys
        return blind


@functools.lru_cache(maxsize=8)
def additive_mask(
    band: Band, queries: int, keys: int, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Return the mask as a bias (queries, keys) of 0 or -inf; cached for equal execution blocks."""
    bias = torch.zeros(queries, keys, dtype=dtype, device=device)
    return bias.masked_fill_(~band.visible(queries, keys, device), -math.inf)
