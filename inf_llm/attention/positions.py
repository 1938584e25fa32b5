"""Positions of keys outside the local window, one class per rule.

The memory keeps keys unrotated, so a rule can give them any position. The summary vectors of blocks
are made of unrotated keys too, so under every rule the search uses queries for unrotated keys.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from inf_llm.kernels import Band, Source
from inf_llm.memory.block_memory import Recalled
from inf_llm.rope import Rope


@dataclass(frozen=True)
class Far:
    """The far tokens of an execution block: tokens outside the window of its last query.

    In the order of the text, they are S sinks, the recalled blocks, and U unsealed tokens, which
    are in no block yet. Keys are unrotated.

    Attributes:
        last: position of the last query.
        kept: keys (B, G, n, D) and values (B, G, n, Dv) of the sinks, then of the unsealed tokens.
        recalled: the recalled blocks, or None.
        needs_mass: whether to compute the attention mass that the recalled keys receive.
    """

    last: int
    kept: tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]
    recalled: Recalled | None
    needs_mass: bool = False

    @property
    def sinks(self) -> int:
        """S, the number of sinks; sink j is token j of the text."""
        return self.kept[0][0].shape[2]

    @property
    def unsealed(self) -> int:
        """U, the number of unsealed tokens."""
        return self.kept[1][0].shape[2]

    @property
    def kept_k(self) -> tuple[Tensor, Tensor]:
        """Keys of the sinks (B, G, S, D) and of the unsealed tokens (B, G, U, D)."""
        return self.kept[0][0], self.kept[1][0]

    @property
    def recalled_k(self) -> Tensor | None:
        """Recalled keys (B, Y, k * block_size, D), or None. Waits until they are on the device."""
        return None if self.recalled is None else self.recalled.k

    @property
    def block_size(self) -> int:
        """Number of tokens in a recalled block."""
        assert self.recalled is not None
        return self.recalled.k.shape[2] // self.recalled.blocks.shape[2]

    @property
    def recalled_at(self) -> Tensor:
        """Positions of recalled tokens in the text (B, X, k * block_size); blocks follow sinks."""
        assert self.recalled is not None
        first = self.sinks + self.recalled.blocks[..., None] * self.block_size
        return (first + torch.arange(self.block_size, device=first.device)).flatten(2)


Placed = tuple[Tensor, tuple[Tensor, Tensor], Tensor | None]
"""Queries, keys of sinks and unsealed tokens, and recalled keys, all after rotation and with
unchanged shapes."""


class FarPositions(ABC):
    """A rule for the positions of far keys.

    Args:
        rope: the rotation of the layer.
        n_local: length of the window; a key at this distance from a query has just left the window.

    Attributes:
        hides_window: whether far keys that are still in the window of a query are hidden from that
            query. All far keys are outside the window only for the last query of an execution
            block.
    """

    hides_window: ClassVar[bool] = True

    def __init__(self, rope: Rope, n_local: int) -> None:
        self.rope = rope
        self.n_local = n_local

    def search_query(self, q: Tensor) -> Tensor:
        """Rotate queries (B, H, Q, D) for block scores: n_local - 1 away from unrotated keys."""
        return self.rope.rotate_far(q, self.n_local - 1)

    @abstractmethod
    def place(self, q: Tensor, searched: Tensor, far: Far) -> Placed:
        """Rotate queries and far keys; `searched` is the result of `search_query` for `q`."""

    def sources(self, q: Tensor, searched: Tensor, far: Far) -> Iterator[Source]:
        """Yield the key sources of an execution block besides the windows of its queries.

        The recalled keys are the first keys of the first source. The iterator waits for the copy of
        recalled blocks to the device only when the first source is taken.

        Args:
            q: queries (B, H, Q, D), unrotated.
            searched: the result of `search_query` for these queries.
            far: the far tokens.
        """
        count = far.sinks + far.unsealed
        if far.recalled is None and not count:
            return
        q, kept_k, recalled_k = self.place(q, searched, far)
        kept = [(k, v) for k, (_, v) in zip(kept_k, far.kept, strict=True) if k.shape[2]]
        if far.recalled is None or recalled_k is None:
            yield Source(q, kept, self._band(q, count))
            return
        pages = recalled_k, far.recalled.v
        if recalled_k.shape[1] == kept_k[0].shape[1]:
            band = self._band(q, count + recalled_k.shape[2])
            yield Source(q, [pages, *kept], band, far.needs_mass)
            return
        # Every query head has its own recalled blocks, but shares the key heads of kept keys.
        yield Source(q, [pages], needs_mass=far.needs_mass)
        if count:
            yield Source(q, kept, self._band(q, count))

    def _band(self, q: Tensor, keys: int) -> Band | None:
        """The band in which each query sees one key more than the query before; the last sees all.

        The hidden keys are the newest keys. Sinks and blocks are older than all windows of the
        execution block.
        """
        if not self.hides_window or q.shape[2] == 1:
            return None
        return Band(keys - q.shape[2])

    def kept_at(self, far: Far, first: int) -> tuple[Tensor, Tensor]:
        """Rotate kept keys: sinks to 0, 1, ..., unsealed tokens to `first`, `first + 1`, ..."""
        sinks, unsealed = far.kept_k
        return self.rope.rotate(sinks, 0), self.rope.rotate(unsealed, first)


class OneDistance(FarPositions):
    """All far keys at distance n_local - 1 from every query, in no order (Xiao et al., 2024).

    All queries see all far keys. The published code does not hide the few far keys that are still
    in the window of an earlier query of the execution block.
    """

    hides_window = False

    def place(self, q: Tensor, searched: Tensor, far: Far) -> Placed:
        """See `FarPositions.place`; keys stay unrotated."""
        return searched, far.kept_k, far.recalled_k


class Contiguous(FarPositions):
    """Positions of a text from which all tokens that are not recalled are removed.

    Of the F far keys that a query sees, in the order of the text, key j is at position j, and the
    query at F - 1 + n_local. So the newest far key is at distance n_local, next to the oldest key
    of the window. No distance exceeds the number of tokens that the query sees, for texts of any
    length. If all blocks are recalled, every key is at its true distance.
    """

    def place(self, q: Tensor, searched: Tensor, far: Far) -> Placed:
        """See `FarPositions.place`."""
        recalled_k = far.recalled_k
        behind = far.sinks + (0 if recalled_k is None else recalled_k.shape[2])
        # The last query sees every far key; the one before it sees one fewer, and so on.
        q = self.rope.rotate(q, behind + far.unsealed + self.n_local - q.shape[2])
        if recalled_k is not None:
            recalled_k = self.rope.rotate(recalled_k, far.sinks)
        return q, self.kept_at(far, behind), recalled_k


class Native(FarPositions):
    """Every key at its position in the text.

    This rule is for texts within the trained length of the model; the model has not learned longer
    distances. If all blocks are recalled, the result is full attention.
    """

    def place(self, q: Tensor, searched: Tensor, far: Far) -> Placed:
        """See `FarPositions.place`."""
        after, recalled_k = far.last + 1, far.recalled_k
        q = self.rope.rotate(q, after - q.shape[2])
        if recalled_k is not None:
            recalled_k = self.rope.rotate_at(recalled_k, far.recalled_at)
        return q, self.kept_at(far, after - self.n_local - far.unsealed), recalled_k
