"""Blocks by the attention mass that they would get, head by head, in two stages.

A block has P vectors per key head, means of its pages. Its score for a query is the product with
the best of them. With `softmax`, a score counts as a share of the head's attention over all blocks,
so no head chooses for the others by scoring louder; shares of heads and queries are then added up.

All blocks are scored by the mean of their vectors. Those that do best, `shortlist` times as many as
are wanted, are scored again by their pages, which are kept in int8: what rounding takes off is far
less than what a page's mean hides of its keys.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from inf_llm.memory.chunks import Chunks
from inf_llm.memory.index import Found, ascending, joined
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
        self._means = Chunks()  # of a block's pages (Y, n, D)
        self._codes = Chunks()  # of the pages in int8 (Y, n, P, D); nothing where P = 1
        self._steps = Chunks()  # what one is worth in the codes of a block (Y, n)
        self._lock = threading.Lock()

    def put(self, blocks: Tensor, summaries: Tensor) -> None:
        """See `Search.put`."""
        pages = summaries.transpose(0, 1)  # (Y, n, P, D)
        with self._lock:
            self._means.put(blocks, pages.mean(2, dtype=torch.float32).to(pages.dtype))
            if pages.shape[2] > 1:
                codes, steps = _rounded(pages)
                self._codes.put(blocks, codes)
                self._steps.put(blocks, steps)

    def search(self, query: Query, topk: int, total: int, table: Tensor | None) -> Found:
        """See `Search.search`."""
        # float32: CPUs multiply several rows in half precision many times slower
        q = query.means(QUERIES).float() * query.scale  # (B, H, Q, D)
        own = None if table is None else table[:, :total].to(q.device)
        means = self._means.parts(total if own is None else self._means.count)
        rough = _rough(means, q, own)  # (B, H, Q, N)
        whole = rough.logsumexp(-1, keepdim=True)
        scores = self._added(rough, whole)  # (B, X, N)
        if not self._codes.count:
            return ascending(*reversed(scores.topk(topk, sorted=False)))
        few = min(total, self.shortlist * topk)
        listed = scores.topk(few, sorted=False).indices  # (B, X, S)
        fine = self._fine(q, listed, own)  # (B, H, Q, S)
        whole = _corrected(whole, _of(rough, listed), fine)
        best = self._added(fine, whole).topk(topk, sorted=False)
        return ascending(listed.gather(2, best.indices), best.values)

    def _fine(self, q: Tensor, listed: Tensor, own: Tensor | None) -> Tensor:
        """Scores (B, H, Q, S) of the listed blocks (B, X, S) by the best of their pages."""
        B, H, Q, D = q.shape
        X, S = listed.shape[1:]
        Y = self._codes.width
        units = max(X, Y)  # lists of pages: every chooser's, of every head that it chooses for
        physical = listed
        if own is not None:
            physical = own[:, None].expand(-1, X, -1).gather(2, listed)
        physical = physical.repeat_interleave(units // X, 1)  # (B, units, S)
        heads = torch.arange(units, device=q.device) // (units // Y)
        at = heads[:, None].expand_as(physical).flatten(), physical.flatten()
        pages = self._codes.rows(*at).float().view(B * units, -1, D).transpose(1, 2)
        scores = torch.bmm(q.reshape(B * units, H // units * Q, D), pages)
        best = scores.view(B * units, -1, S, scores.shape[2] // S).amax(-1)
        steps = self._steps.rows(*at).view(B * units, 1, S)
        return (best * steps).view(B, H, Q, S)

    def _added(self, scores: Tensor, whole: Tensor) -> Tensor:
        """Scores (B, H, Q, N) of heads and queries as those of choosers (B, X, N)."""
        if self.selection.scores == "softmax":
            scores = (scores - whole).exp()
        return self.selection.mass(scores.sum(2) if scores.shape[2] > 1 else scores[:, :, 0])

    def dump(self, blocks: Tensor) -> dict[str, Tensor]:
        """See `Search.dump`."""
        return {name: held.of(blocks) for name, held in self._parts.items() if held.count}

    def restore(self, parts: Mapping[str, Sequence[Tensor]], device: torch.device) -> None:
        """See `Search.restore`."""
        for name, held in self._parts.items():
            held.restore(parts.get(name, ()), device)

    @property
    def _parts(self) -> dict[str, Chunks]:
        return {"means": self._means, "codes": self._codes, "steps": self._steps}

    @property
    def nbytes(self) -> int:
        """See `Search.nbytes`."""
        return sum(held.nbytes for held in self._parts.values())


def _rounded(pages: Tensor) -> tuple[Tensor, Tensor]:
    """Pages (Y, n, P, D) in int8, and what one is worth in each block (Y, n)."""
    steps = pages.flatten(2).float().norm(torch.inf, -1).clamp_(min=1e-30) / _LARGEST
    return (pages.float() / steps[..., None, None]).round().to(torch.int8), steps


def _rough(means: list[Tensor], q: Tensor, own: Tensor | None) -> Tensor:
    """Scores (B, H, Q, N) of the rows' blocks by their means (Y, n, D), chunk by chunk."""
    B, H, Q, D = q.shape
    Y = len(means[0])
    asked = q.reshape(B, Y, H // Y * Q, D).transpose(0, 1).reshape(Y, -1, D)
    scores = joined([torch.bmm(asked, part.float().transpose(1, 2)) for part in means])
    scores = scores.view(Y, B, H // Y, Q, -1).transpose(0, 1).reshape(B, H, Q, -1)
    if own is not None:
        scores = scores.gather(3, own[:, None, None].expand(B, H, Q, -1))
    return scores


def _of(scores: Tensor, listed: Tensor) -> Tensor:
    """Scores (B, H, Q, N) of each head's listed blocks (B, X, S): (B, H, Q, S)."""
    B, H, Q, _ = scores.shape
    own = listed.repeat_interleave(H // listed.shape[1], 1)[:, :, None]
    return scores.gather(3, own.expand(B, H, Q, -1))


def _corrected(whole: Tensor, rough: Tensor, fine: Tensor) -> Tensor:
    """The log-sum over all blocks (B, H, Q, 1) with the listed ones (B, H, Q, S) scored anew."""
    listed = fine.logsumexp(-1, keepdim=True)
    rest = 1 - (rough - whole).exp().sum(-1, keepdim=True)
    return torch.logaddexp(whole + rest.clamp_(min=1e-20).log(), listed)
