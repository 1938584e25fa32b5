"""Selection rules: which heads choose blocks, by which scores, and which pages a choice loads."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from inf_llm.checks import require


class Selection(ABC):
    """A selection rule, in two forms.

    `vectors` and `ask` are for sums of products with one vector per block; `mass` is for all other
    scores. A subclass that overrides only one form is searched by that form.

    Args:
        heads: query heads, H.
        groups: key heads, G; query head h reads key head ``h // (H // G)``.
        summaries: heads with their own summary vectors, Y: G where query heads share them, else H.
        scores: the way to combine the scores of heads: "sum" adds the scores, "softmax" adds the
            shares of attention of each head.

    Attributes:
        choosers: independent choices of blocks per row, X: for example one, or one per key head.
    """

    choosers: int

    def __init__(self, heads: int, groups: int, summaries: int, scores: str = "sum") -> None:
        self.heads, self.groups, self.summaries = heads, groups, summaries
        self.scores = scores

    @property
    def key_heads(self) -> Tensor | None:
        """Key head whose pages each chooser reads (X,); None where a choice loads whole blocks."""
        return None

    @abstractmethod
    def vectors(self, summaries: Tensor) -> Tensor:
        """Convert the summaries of n blocks (n, Y, D) to vectors of the index (V, n, W)."""

    @abstractmethod
    def ask(self, query: Tensor) -> Tensor:
        """Convert queries (B, H, D) to queries of the index (B, X, W).

        Query x is multiplied with vector ``x // (X // V)``.
        """

    @abstractmethod
    def mass(self, mass: Tensor) -> Tensor:
        """Sum scores or attention mass per query head (B, H, k) for each chooser (B, X, k)."""

    def check(self) -> None:
        """Check that the methods return the shapes that a search needs.

        Raises:
            SettingsError: a method returns another shape.
        """
        X, key_heads = self.choosers, self.key_heads
        if self.by_mass:
            self._require("mass", self.mass(torch.zeros(2, self.heads, 3)), (2, X, 3))
        if self.by_products:
            held = self.vectors(torch.zeros(3, self.summaries, 8))
            whole = held.dim() == 3 and held.shape[0] and X % held.shape[0] == 0
            self._require("vectors", held, (held.shape[0] if whole else X, 3, held.shape[-1]))
            self._require("ask", self.ask(torch.zeros(2, self.heads, 8)), (2, X, held.shape[2]))
        if key_heads is not None:
            self._require("key_heads", key_heads, (X,))

    def _require(self, what: str, result: Tensor, needed: tuple[int, ...]) -> None:
        message = (
            f"{type(self).__name__}: {what} gives {tuple(result.shape)} where {needed} is needed, "
            f"for choosers = {self.choosers}, {self.heads} query heads and {self.groups} key heads"
        )
        require(result.shape == needed, "selection", message)

    @property
    def by_products(self) -> bool:
        """Whether `vectors` and `ask` define the rule: no subclass overrides `mass` alone."""
        return self._depth("vectors", "ask") <= self._depth("mass")

    @property
    def by_mass(self) -> bool:
        """Whether `mass` defines the rule: no subclass overrides `vectors` or `ask` alone."""
        return self._depth("mass") <= self._depth("vectors", "ask")

    @classmethod
    def _depth(cls, *methods: str) -> int:
        """Return the place in the MRO of the first class that defines one of these methods."""
        return next(n for n, each in enumerate(cls.__mro__) if {*methods} & vars(each).keys())


class LayerSelection(Selection):
    """One choice for all heads of a layer, by the sum of their scores (Xiao et al., 2024)."""

    choosers = 1

    def vectors(self, summaries: Tensor) -> Tensor:
        """See `Selection.vectors`."""
        return summaries.flatten(1)[None]

    def ask(self, query: Tensor) -> Tensor:
        """See `Selection.ask`; query heads that share a vector are added before the product."""
        shared = self.heads // self.summaries
        if shared > 1:
            summed = query.unflatten(1, (-1, shared)).sum(2, dtype=torch.float32)
            query = summed.to(query.dtype)
        return query.flatten(1)[:, None]

    def mass(self, mass: Tensor) -> Tensor:
        """See `Selection.mass`."""
        return mass.sum(1, keepdim=True)


class KeyHeadSelection(Selection):
    """One choice for each key head, by the sum of the scores of its query heads."""

    def __init__(self, heads: int, groups: int, summaries: int, scores: str = "sum") -> None:
        super().__init__(heads, groups, summaries, scores)
        self.choosers = groups

    @property
    def key_heads(self) -> Tensor:
        """See `Selection.key_heads`."""
        return torch.arange(self.groups)

    def vectors(self, summaries: Tensor) -> Tensor:
        """See `Selection.vectors`."""
        return summaries.unflatten(1, (self.groups, -1)).flatten(2).transpose(0, 1)

    def ask(self, query: Tensor) -> Tensor:
        """See `Selection.ask`."""
        sums = query.unflatten(1, (self.summaries, -1)).sum(2, dtype=torch.float32)
        return sums.to(query.dtype).unflatten(1, (self.groups, -1)).flatten(2)

    def mass(self, mass: Tensor) -> Tensor:
        """See `Selection.mass`."""
        return mass.unflatten(1, (self.groups, -1)).sum(2)


class QueryHeadSelection(Selection):
    """One choice for each query head."""

    def __init__(self, heads: int, groups: int, summaries: int, scores: str = "sum") -> None:
        super().__init__(heads, groups, summaries, scores)
        self.choosers = heads

    @property
    def key_heads(self) -> Tensor:
        """See `Selection.key_heads`."""
        return torch.arange(self.heads) // (self.heads // self.groups)

    def vectors(self, summaries: Tensor) -> Tensor:
        """See `Selection.vectors`."""
        return summaries.transpose(0, 1)

    def ask(self, query: Tensor) -> Tensor:
        """See `Selection.ask`."""
        return query

    def mass(self, mass: Tensor) -> Tensor:
        """See `Selection.mass`."""
        return mass
