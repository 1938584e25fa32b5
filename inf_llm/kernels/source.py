"""What one softmax may take its keys from: several sources, each with a query of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from inf_llm.kernels.band import Band

Pieces = Sequence[tuple[Tensor, Tensor]]
"""Keys (B, G, K, D) and values (B, G, K, Dv) that lie in several places, one behind the other."""


@dataclass(frozen=True)
class Source:
    """Keys that a query (rotated to suit them) attends to.

    Attributes:
        q: (B, H, Q, D).
        pieces: keys and values.
        band: which keys a query sees; None for all.
        watched: whether the mass that the keys receive is wanted.
    """

    q: Tensor
    pieces: Pieces
    band: Band | None = None
    watched: bool = False

    def joined(self) -> tuple[Tensor, Tensor]:
        """All pieces as one."""
        if len(self.pieces) == 1:
            return self.pieces[0]
        k, v = zip(*self.pieces, strict=True)
        return torch.cat(k, 2), torch.cat(v, 2)
