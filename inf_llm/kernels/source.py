"""Key sources of one softmax. Each source has its own rotation of the query."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from inf_llm.kernels.band import Band

Pieces = Sequence[tuple[Tensor, Tensor]]
"""Consecutive keys (B, G, K, D) and values (B, G, K, Dv) that are stored in separate tensors."""


@dataclass(frozen=True)
class Source:
    """Keys and values, with queries that are rotated for these keys.

    Attributes:
        q: queries (B, H, Q, D).
        pieces: keys and values.
        band: the keys that each query sees; None for all.
        needs_mass: whether to compute the attention mass that the keys receive.
    """

    q: Tensor
    pieces: Pieces
    band: Band | None = None
    needs_mass: bool = False

    def joined(self) -> tuple[Tensor, Tensor]:
        """Return keys and values of all pieces, each as one tensor."""
        if len(self.pieces) == 1:
            return self.pieces[0]
        k, v = zip(*self.pieces, strict=True)
        return torch.cat(k, 2), torch.cat(v, 2)
