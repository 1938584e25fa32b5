"""Who chooses the blocks of a row, what with, and whose pages a choice brings."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from inf_llm.checks import require


class Selection(ABC):
    """One rule, in two forms: `vectors` and `ask` for sums of products with one vector per block,
    and `mass` for everything else. A class that overrides only one is searched by that one.

    Args:
        heads: query heads, H.
        groups: key heads, G; query head h reads key head ``h // (H // G)``.
        summaries: heads that have summary vectors, Y: G where query heads share them, else H.
        scores: how scores of heads become one: "sum" adds them as they are, "softmax" adds each
            head's shares of attention.

    Attributes:
        choosers: choices of a row, X.
    """

    choosers: int

    def __init__(self, heads: int, groups: int, summaries: int, scores: str = "sum") -> None:
        self.heads, self.groups, self.summaries = heads, groups, summaries
        self.scores = scores

    @property
    def key_heads(self) -> Tensor | None:
        """The key head whose pages each chooser reads (X,); None where a choice is for all."""
        return None

    @abstractmethod
    def vectors(self, summaries: Tensor) -> Tensor:
        """Summaries of n blocks (n, Y, D) as the index holds them (V, n, W)."""

    @abstractmethod
    def ask(self, query: Tensor) -> Tensor:
        """Queries (B, H, D) as the index takes them (B, X, W); x meets vector ``x // (X // V)``."""

    @abstractmethod
    def mass(self, mass: Tensor) -> Tensor:
        """What blocks received from query heads (B, H, k), for each chooser (B, X, k)."""

    def check(self) -> None:
        """See that choices come out in the shapes that a search needs.

        Raises:
            SettingsError: they do not.
        """
        X, own = self.choosers, self.key_heads
        if self.by_mass:
            self._require("mass", self.mass(torch.zeros(2, self.heads, 3)), (2, X, 3))
        if self.by_products:
            held = self.vectors(torch.zeros(3, self.summaries, 8))
            whole = held.dim() == 3 and held.shape[0] and X % held.shape[0] == 0
            self._require("vectors", held, (held.shape[0] if whole else X, 3, held.shape[-1]))
            self._require("ask", self.ask(torch.zeros(2, self.heads, 8)), (2, X, held.shape[2]))
        if own is not None:
            self._require("key_heads", own, (X,))

    def _require(self, what: str, found: Tensor, needed: tuple[int, ...]) -> None:
        message = (
            f"{type(self).__name__}: {what} gives {tuple(found.shape)} where {needed} is needed, "
            f"for choosers = {self.choosers}, {self.heads} query heads and {self.groups} key heads"
        )
        require(found.shape == needed, "selection", message)

    @property
    def by_products(self) -> bool:
        """Whether `vectors` and `ask` state the rule: no subclass has overridden `mass` alone."""
        return self._depth("vectors", "ask") <= self._depth("mass")

    @property
    def by_mass(self) -> bool:
        """Whether `mass` states the rule: no subclass has overridden `vectors` or `ask` alone."""
        return self._depth("mass") <= self._depth("vectors", "ask")

    @classmethod
    def _depth(cls, *methods: str) -> int:
        """How many classes up the first one is that defines one of these methods."""
        return next(n for n, each in enumerate(cls.__mro__) if {*methods} & vars(each).keys())


class LayerSelection(Selection):
    """All heads of a layer choose together, by the sum of their scores (Xiao et al., 2024)."""

    choosers = 1

    def vectors(self, summaries: Tensor) -> Tensor:
        """See `Selection.vectors`."""
        return summaries.flatten(1)[None]

    def ask(self, query: Tensor) -> Tensor:
        """Queries with the same vector are added up before the product."""
        shared = self.heads // self.summaries
        if shared > 1:
            summed = query.unflatten(1, (-1, shared)).sum(2, dtype=torch.float32)
            query = summed.to(query.dtype)
        return query.flatten(1)[:, None]

    def mass(self, mass: Tensor) -> Tensor:
        """See `Selection.mass`."""
        return mass.sum(1, keepdim=True)


class KeyHeadSelection(Selection):
    """Every key head chooses, by the sum over its query heads."""

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
        each = query.unflatten(1, (self.summaries, -1)).sum(2, dtype=torch.float32)
        return each.to(query.dtype).unflatten(1, (self.groups, -1)).flatten(2)

    def mass(self, mass: Tensor) -> Tensor:
        """See `Selection.mass`."""
        return mass.unflatten(1, (self.groups, -1)).sum(2)


class QueryHeadSelection(Selection):
    """Every query head chooses for itself."""

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
