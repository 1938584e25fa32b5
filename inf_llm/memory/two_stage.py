"""Blocks by the attention mass that they would get, head by head, in two stages.

A block has P vectors per key head, means of its pages. Its score for a query is the product with
the best of them. With `softmax`, a score counts as a share of the head's attention over all blocks,
so no head chooses for the others by scoring louder; shares of heads and queries are then added up.

All blocks are scored by the mean of their vectors. Those that do best, `shortlist` times as many as
are wanted, are scored again by their pages, which are kept in int8: what rounding takes off is far
less than what a page's mean hides of its keys.
"""

from __future__ import annotations

import torch
from torch import Tensor

from inf_llm.memory.index import Found, ascending
from inf_llm.memory.search import Query, Search
from inf_llm.memory.selection import Selection

QUERIES = 4
"""Mean queries of an execution block, each of which scores for itself."""
_LARGEST = 127  # of int8


class TwoStage(Search):
    """See the module's text.

    Args:
        selection: who chooses.
        shortlist: blocks scored by their pages for every block that is wanted.
    """

    def __init__(self, selection: Selection, shortlist: int) -> None:
        super().__init__(selection)
        self.shortlist = shortlist
        self._means: Tensor | None = None  # (Y, room, D)
        self._codes: Tensor | None = None  # of pages (Y, room, P, D) int8; None where P = 1
        self._steps: Tensor | None = None  # values of one (Y, room)
        self._count = 0

    def put(self, blocks: Tensor, summaries: Tensor) -> None:
        """See `Search.put`; the room doubles, so appending is cheap on average."""
        self._count = max(self._count, int(blocks.max()) + 1)
        at, pages = blocks.to(summaries.device), summaries.transpose(0, 1)  # (Y, n, P, D)
        means = pages.mean(2, dtype=torch.float32).to(pages.dtype)
        self._means = _written(self._means, at, means, self._count)
        if pages.shape[2] > 1:
            steps = pages.flatten(2).float().norm(torch.inf, -1).clamp_(min=1e-30) / _LARGEST
            codes = (pages.float() / steps[..., None, None]).round().to(torch.int8)
            self._codes = _written(self._codes, at, codes, self._count)
            self._steps = _written(self._steps, at, steps, self._count)

    def search(self, query: Query, topk: int, total: int, table: Tensor | None) -> Found:
        """See `Search.search`."""
        # float32: CPUs multiply several rows in half precision many times slower
        q = query.means(QUERIES).float() * query.scale  # (B, H, Q, D)
        own = None if table is None else table[:, :total].to(q.device)
        rough = self._rough(q, total, own)  # (B, H, Q, N)
        whole = rough.logsumexp(-1, keepdim=True)
        scores = self._added(rough, whole)  # (B, X, N)
        few = min(total, self.shortlist * topk)
        if self._codes is None:
            return ascending(*reversed(scores.topk(topk, sorted=False)))
        listed = scores.topk(few, sorted=False).indices  # (B, X, S)
        fine = self._fine(q, listed, own)  # (B, H, Q, S)
        if self.selection.scores == "softmax" and few < total:
            whole = _corrected(whole, self._of(rough, listed), fine)
        elif few == total:
            whole = fine.logsumexp(-1, keepdim=True)
        best = self._added(fine, whole).topk(topk, sorted=False)
        return ascending(listed.gather(2, best.indices), best.values)

    def _rough(self, q: Tensor, total: int, own: Tensor | None) -> Tensor:
        """Scores (B, H, Q, N) of the rows' blocks by their means."""
        assert self._means is not None
        B, H, Q, D = q.shape
        Y = len(self._means)
        some = self._means[:, : total if own is None else self._count]
        asked = q.reshape(B, Y, H // Y * Q, D).transpose(0, 1).reshape(Y, -1, D)
        scores = torch.bmm(asked, some.float().transpose(1, 2))
        scores = scores.view(Y, B, H // Y, Q, -1).transpose(0, 1).reshape(B, H, Q, -1)
        if own is not None:
            scores = scores.gather(3, own[:, None, None].expand(B, H, Q, -1))
        return scores

    def _fine(self, q: Tensor, listed: Tensor, own: Tensor | None) -> Tensor:
        """Scores (B, H, Q, S) of the listed blocks (B, X, S) by the best of their pages."""
        assert self._codes is not None
        assert self._steps is not None
        B, H, Q, D = q.shape
        Y, room, P, _ = self._codes.shape
        X, S = listed.shape[1:]
        units = max(X, Y)  # lists of pages: every chooser's, of every head that it chooses for
        physical = listed
        if own is not None:
            physical = own[:, None].expand(-1, X, -1).gather(2, listed)
        physical = physical.repeat_interleave(units // X, 1)
        heads = torch.arange(units, device=q.device) // (units // Y)
        at = (physical + heads[:, None] * room).flatten()
        codes = self._codes.view(Y * room, P * D).index_select(0, at).float()
        pages = codes.view(B * units, S * P, D).transpose(1, 2)
        scores = torch.bmm(q.reshape(B * units, H // units * Q, D), pages)
        best = scores.view(B * units, -1, S, P).amax(-1)
        steps = self._steps.view(-1).index_select(0, at).view(B * units, 1, S)
        return (best * steps).view(B, H, Q, S)

    def _of(self, scores: Tensor, listed: Tensor) -> Tensor:
        """Scores (B, H, Q, N) of each head's listed blocks (B, X, S): (B, H, Q, S)."""
        B, H, Q, _ = scores.shape
        own = listed.repeat_interleave(H // listed.shape[1], 1)[:, :, None]
        return scores.gather(3, own.expand(B, H, Q, -1))

    def _added(self, scores: Tensor, whole: Tensor) -> Tensor:
        """Scores (B, H, Q, N) of heads and queries as those of choosers (B, X, N)."""
        if self.selection.scores == "softmax":
            scores = (scores - whole).exp()
        return self.selection.mass(scores.sum(2) if scores.shape[2] > 1 else scores[:, :, 0])

    @property
    def nbytes(self) -> int:
        """See `Search.nbytes`; the room that is not used yet is not counted."""
        held = (self._means, self._codes, self._steps)
        return sum(part[:, 0].nbytes * self._count for part in held if part is not None)


def _corrected(whole: Tensor, rough: Tensor, fine: Tensor) -> Tensor:
    """The log-sum over all blocks (B, H, Q, 1) with the listed ones (B, H, Q, S) scored anew."""
    rest = 1 - (rough - whole).exp().sum(-1, keepdim=True)
    rest = whole + rest.clamp_(min=1e-20).log()
    return torch.logaddexp(rest, fine.logsumexp(-1, keepdim=True))


def _written(held: Tensor | None, at: Tensor, values: Tensor, needed: int) -> Tensor:
    """What is held, with values (Y, n, ...) at places (n,) of dimension 1 and room for `needed`."""
    room = 0 if held is None else held.shape[1]
    if held is None or needed > room:
        shape = (values.shape[0], max(64, 2 * room, needed), *values.shape[2:])
        fresh = values.new_empty(shape)
        if held is not None:
            fresh[:, :room] = held
        held = fresh
    held[:, at] = values
    return held
