"""Summary rules: the vectors by which a search compares blocks with a query."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from inf_llm.checks import require


class Summary(ABC):
    """A summary rule.

    Args:
        block_size: tokens of a block.

    Attributes:
        needs_mass: whether the rule uses the attention mass that tokens receive in the window.
        shared: whether the query heads of a key head share their vectors.
        pages: vectors per block and head, P.
    """

    needs_mass = False
    shared = True
    pages = 1

    def __init__(self, block_size: int) -> None:
        self.block_size = block_size

    @abstractmethod
    def vectors(self, k: Tensor, mass: Tensor) -> Tensor:
        """Return the summary vectors of n blocks.

        Args:
            k: keys of the blocks (B, G, n, block, D), unrotated.
            mass: attention mass (B, H, n, block) that the tokens received; zero unless
                `needs_mass`.

        Returns:
            Vectors (B, G, n, P, D) if `shared`, otherwise (B, H, n, P, D), in the dtype of `k`.
        """

    def checked_vectors(self, k: Tensor, mass: Tensor) -> Tensor:
        """Return `vectors`, after a check of their shape.

        Raises:
            SettingsError: the vectors have a wrong shape.
        """
        vectors, (B, G, n, _, D) = self.vectors(k, mass), k.shape
        heads, whose = (G, "key") if self.shared else (mass.shape[1], "query")
        needed = B, heads, n, self.pages, D
        given = f"{type(self).__name__} gives vectors {tuple(vectors.shape)}"
        what = f"rows, {whose} heads, blocks, pages = {self.pages}, width of a head"
        message = f"{given}, but {needed} is needed: {what}"
        require(vectors.shape == needed, "summary", message)
        return vectors


class Pages(Summary):
    """Mean unrotated keys of the pages of each block; a page is a run of neighbouring tokens."""

    def __init__(self, block_size: int, page_size: int) -> None:
        super().__init__(block_size)
        self.pages = block_size // page_size

    def vectors(self, k: Tensor, mass: Tensor) -> Tensor:
        """See `Summary.vectors`."""
        return k.unflatten(3, (self.pages, -1)).mean(4, dtype=torch.float32).to(k.dtype)


class Mean(Pages):
    """Mean unrotated key of each block."""

    def __init__(self, block_size: int) -> None:
        super().__init__(block_size, block_size)


class MostAttended(Summary):
    """Mean unrotated key of the tokens of each block that received the most attention.

    The rule of InfLLM (Xiao et al., 2024), section 3.2, applied per query head. If `tokens` is the
    block size, the mean is the same for all query heads of a key head, and they share one vector.
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
