"""What stands for a block when blocks are compared with a query."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from inf_llm.checks import require


class Summary(ABC):
    """One rule.

    Args:
        block_size: tokens of a block.

    Attributes:
        needs_mass: whether the attention that each token receives in the window is counted.
        shared: whether the query heads of a key head share a vector.
        pages: vectors of a block and head, P.
    """

    needs_mass = False
    shared = True
    pages = 1

    def __init__(self, block_size: int) -> None:
        self.block_size = block_size

    @abstractmethod
    def vectors(self, k: Tensor, mass: Tensor) -> Tensor:
        """Summaries of n blocks.

        Args:
            k: their keys (B, G, n, block, D), unrotated.
            mass: attention mass that their tokens received (B, H, n, block); zero unless
                `needs_mass`.

        Returns:
            (B, G, n, P, D) where they are shared, else (B, H, n, P, D), in k's dtype.
        """

    def checked_vectors(self, k: Tensor, mass: Tensor) -> Tensor:
        """`vectors`, of which no page or head may be missing or too many.

        Raises:
            SettingsError: their shape is another one.
        """
        found, (B, G, n, _, D) = self.vectors(k, mass), k.shape
        heads, whose = (G, "key") if self.shared else (mass.shape[1], "query")
        needed = B, heads, n, self.pages, D
        given = f"{type(self).__name__} gives vectors {tuple(found.shape)}"
        what = f"rows, {whose} heads, blocks, pages = {self.pages}, width of a head"
        message = f"{given}, but {needed} is needed: {what}"
        require(found.shape == needed, "summary", message)
        return found


class Pages(Summary):
    """The mean unrotated keys of the pages, runs of neighbouring tokens, of each block."""

    def __init__(self, block_size: int, page_size: int) -> None:
        super().__init__(block_size)
        self.pages = block_size // page_size

    def vectors(self, k: Tensor, mass: Tensor) -> Tensor:
        """See `Summary.vectors`."""
        return k.unflatten(3, (self.pages, -1)).mean(4, dtype=torch.float32).to(k.dtype)


class Mean(Pages):
    """The mean unrotated key of each block."""

    def __init__(self, block_size: int) -> None:
        super().__init__(block_size, block_size)


class MostAttended(Summary):
    """Mean unrotated key of the tokens of each block that received the most attention.

    The rule of InfLLM (Xiao et al., 2024), section 3.2, applied per query head. Where all tokens
    represent their block, query heads do not differ, and those of a key head share one mean.
    """

    def __init__(self, block_size: int, tokens: int) -> None:
        super().__init__(block_size)
        self._tokens = tokens
        self.shared = tokens == block_size
        self.needs_mass = not self.shared

    def vectors(self, k: Tensor, mass: Tensor) -> Tensor:
        """See `Summary.vectors`."""
        if self.shared:
            return Mean(self.block_size).vectors(k, mass)
        B, G, n, block, D = k.shape
        H = mass.shape[1]
        best = mass.topk(self._tokens, dim=-1, sorted=False).indices  # (B, H, n, tokens)
        best = best.view(B, G, H // G, n, self._tokens, 1).expand(-1, -1, -1, -1, -1, D)
        keys = k.unsqueeze(2).expand(B, G, H // G, n, block, D).gather(4, best)
        return keys.mean(4, dtype=torch.float32).to(k.dtype).reshape(B, H, n, 1, D)
