"""Where keys stand that have left the local window, one class per rule.

The memory keeps keys unrotated, so a rule may place them anywhere. What blocks are found by is made
of such keys, so under every rule they are searched for with a query that meets keys as they are.
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
    """All that the last query of an execution block has lost from its window and may attend to.

    In the order of the text: S sinks, recalled blocks, and U unsealed tokens, which are in no block
    yet. Keys are unrotated.

    Attributes:
        last: position of the last query.
        sinks: S; sink j is token j of the text.
        kept: keys (B, G, S + U, D) and values (B, G, S + U, Dv) of sinks and unsealed tokens.
        recalled: the recalled blocks, or None.
        watched: whether the mass that recalled keys receive is wanted.
    """

    last: int
    sinks: int
    kept: tuple[Tensor, Tensor]
    recalled: Recalled | None
    watched: bool = False

    @property
    def unsealed(self) -> int:
        """U."""
        return self.kept[0].shape[2] - self.sinks

    @property
    def recalled_k(self) -> Tensor | None:
        """Recalled keys (B, Y, k * block_size, D), once they are on the device; None without."""
        return None if self.recalled is None else self.recalled.k

    @property
    def block_size(self) -> int:
        """Tokens of a recalled block."""
        assert self.recalled is not None
        return self.recalled.k.shape[2] // self.recalled.blocks.shape[2]

    @property
    def recalled_at(self) -> Tensor:
        """Where recalled tokens stood in the text (B, X, k * block_size); blocks follow sinks."""
        assert self.recalled is not None
        first = self.sinks + self.recalled.blocks[..., None] * self.block_size
        return (first + torch.arange(self.block_size, device=first.device)).flatten(2)


Placed = tuple[Tensor, Tensor, Tensor | None]
"""Queries, kept keys and recalled keys, rotated; shapes as they came."""


class FarPositions(ABC):
    """One rule.

    Args:
        rope: how the layer rotates.
        n_local: length of the window; a key at this distance from a query has just left it.

    Attributes:
        hides_window: a query does not see those far keys that are still in its own window. Only
            the last query of an execution block has lost all of them.
    """

    hides_window: ClassVar[bool] = True

    def __init__(self, rope: Rope, n_local: int) -> None:
        self.rope = rope
        self.n_local = n_local

    def search_query(self, q: Tensor) -> Tensor:
        """Queries (B, H, Q, D) as blocks are scored with them: n_local - 1 from unrotated keys."""
        return self.rope.rotate_far(q, self.n_local - 1)

    @abstractmethod
    def place(self, q: Tensor, searched: Tensor, far: Far) -> Placed:
        """Rotate queries and far keys; `searched` is what `search_query` made of these queries."""

    def sources(self, q: Tensor, searched: Tensor, far: Far) -> Iterator[Source]:
        """What the queries of an execution block attend to besides their windows.

        The recalled keys are the first of the first source. They are waited for only when it is
        asked for.

        Args:
            q: queries (B, H, Q, D), unrotated.
            searched: what `search_query` made of them.
            far: what there is.
        """
        if far.recalled is None and not far.kept[0].shape[2]:
            return
        q, kept_k, recalled_k = self.place(q, searched, far)
        kept = kept_k, far.kept[1]
        if far.recalled is None or recalled_k is None:
            yield Source(q, [kept], self._band(q, kept_k))
            return
        pages = recalled_k, far.recalled.v
        if recalled_k.shape[1] == kept_k.shape[1]:
            yield Source(q, [pages, kept], self._band(q, kept_k, recalled_k), far.watched)
            return
        # Every query head has blocks of its own.
        yield Source(q, [pages], watched=far.watched)
        if kept_k.shape[2]:
            yield Source(q, [kept], self._band(q, kept_k))

    def _band(self, q: Tensor, *keys: Tensor) -> Band | None:
        """Each query sees one of the newest keys more than the query before it; the last sees all.

        Sinks and blocks are older than every window of the execution block.
        """
        if not self.hides_window or q.shape[2] == 1:
            return None
        return Band(sum(k.shape[2] for k in keys) - q.shape[2])

    def kept_at(self, far: Far, first: int) -> Tensor:
        """Kept keys with the sinks at 0, 1, ... and unsealed ones at `first`, `first + 1`, ..."""
        k = far.kept[0]
        parts = (k[:, :, : far.sinks], 0), (k[:, :, far.sinks :], first)
        return torch.cat([self.rope.rotate(*part) for part in parts], 2)


class OneDistance(FarPositions):
    """All far keys at distance n_local - 1 of every query, in no order (Xiao et al., 2024).

    All queries see all of them: the published code does not hide from a query the few tokens that
    only the execution block's last query has lost from its window.
    """

    hides_window = False

    def place(self, q: Tensor, searched: Tensor, far: Far) -> Placed:
        """See `FarPositions.place`; keys stay as they are."""
        return searched, far.kept[0], far.recalled_k


class Contiguous(FarPositions):
    """The text as if what was not recalled had been cut out of it.

    Of the F far keys that a query sees, in the order of the text, key j stands at j, and the query
    at F - 1 + n_local: the newest far key is at distance n_local, next to the oldest of the window.
    No distance exceeds the number of tokens seen, however long the text is. Where nothing is cut
    out, every key is at its true distance.
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
    """Every key where it stood in the text.

    For texts within the length that the model was trained with; farther away it has not learned
    what a distance means. With all blocks recalled it is full attention.
    """

    def place(self, q: Tensor, searched: Tensor, far: Far) -> Placed:
        """See `FarPositions.place`."""
        after, recalled_k = far.last + 1, far.recalled_k
        q = self.rope.rotate(q, after - q.shape[2])
        if recalled_k is not None:
            recalled_k = self.rope.rotate_at(recalled_k, far.recalled_at)
        return q, self.kept_at(far, after - self.n_local - far.unsealed), recalled_k
