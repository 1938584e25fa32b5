"""Blocks by the attention mass that they would get, head by head, in two stages.

A block has P vectors per key head, means of its pages. Its score for a query is the product with
the best of them. With `softmax`, a score counts as a share of the head's attention over all blocks,
so no head chooses for the others by scoring louder; shares of heads and queries are then added up.

All blocks are scored by the mean of their vectors. Those that do best, `shortlist` times as many as
are wanted, are scored again by their pages, which are kept in int8: what rounding takes off is far
less than what a page's mean hides of its keys.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from inf_llm.errors import SettingsError
from inf_llm.memory.index import Found, ascending
from inf_llm.memory.page_summaries import PageSummaries
from inf_llm.memory.search import Query, Search
from inf_llm.memory.selection import Selection

QUERIES = 4
"""Mean queries of an execution block, each of which scores for itself."""


class TwoStage(Search):
    """See the module's text.

    Args:
        selection: who chooses.
        shortlist: blocks scored by their pages for every block that is wanted.

    Raises:
        SettingsError: the selection does not say what to do with the scores of heads.
    """

    def __init__(self, selection: Selection, shortlist: int) -> None:
        super().__init__(selection)
        if not selection.by_mass:
            raise SettingsError(
                f"{type(selection).__name__} overrides `vectors` or `ask` alone, which serve sums "
                "of products with one vector per block: set summary: mean, without index and "
                "scores: softmax, or override `mass` too",
                "selection",
            )
        self.shortlist = shortlist
        self.held = PageSummaries()

    def put(self, blocks: Tensor, summaries: Tensor) -> None:
        """See `Search.put`."""
        self.held.put(blocks, summaries.transpose(0, 1))

    def search(self, query: Query, topk: int, total: int, table: Tensor | None) -> Found:
        """See `Search.search`."""
        return self._best([self], query, topk, [total], [table])

    @classmethod
    def search_each(
        cls,
        searches: Sequence[Search],
        query: Query,
        topk: int,
        totals: Sequence[int],
        tables: Sequence[Tensor | None],
    ) -> list[Found]:
        """See `Search.search_each`; those that list as many blocks are computed together."""
        found: dict[int, Found] = {}
        many = [search.shortlist * topk for search in searches if isinstance(search, TwoStage)]
        lists = [min(pair) for pair in zip(totals, many, strict=True)]
        for few in dict.fromkeys(lists):
            at = [row for row, length in enumerate(lists) if length == few]
            some: list[Any] = [searches[row] for row in at]
            rows = Query(query.vectors[at], query.scale)
            own = [totals[row] for row in at], [tables[row] for row in at]
            blocks, scores = some[0]._best(some, rows, topk, *own)
            found |= zip(at, zip(blocks.split(1), scores.split(1), strict=True), strict=True)
        return [found[row] for row in range(len(searches))]

    def _best(
        self,
        searches: Sequence[TwoStage],
        query: Query,
        topk: int,
        totals: Sequence[int],
        tables: Sequence[Tensor | None],
    ) -> Found:
        """The best blocks of each search's rows, as many rows of the query for each in turn."""
        # float32: CPUs multiply several rows in half precision many times slower
        q = query.means(QUERIES).float() * query.scale  # (B, H, Q, D)
        each = zip(searches, q.split(len(q) // len(searches)), totals, tables, strict=True)
        rows = [_Rows(search.held, *own) for search, *own in each]
        rough = _side_by_side([each.rough() for each in rows])  # (B, H, Q, N)
        whole = rough.logsumexp(-1, keepdim=True)
        scores = _within(self._added(rough, whole), totals)  # (B, X, N)
        few = min(*totals, self.shortlist * topk)
        if not self.held.has_pages:
            return ascending(*reversed(scores.topk(topk, sorted=False)))
        listed = scores.topk(few, sorted=False).indices  # (B, X, S)
        pages = [
            each.pages(own)
            for each, own in zip(rows, listed.split(len(q) // len(rows)), strict=True)
        ]
        fine = _fine(q, *(_joined(part) for part in zip(*pages, strict=True)))  # (B, H, Q, S)
        whole = _corrected(whole, _of(rough, listed), fine)
        best = self._added(fine, whole).topk(topk, sorted=False)
        return ascending(listed.gather(2, best.indices), best.values)

    def _added(self, scores: Tensor, whole: Tensor) -> Tensor:
        """Scores (B, H, Q, N) of heads and queries as those of choosers (B, X, N)."""
        if self.selection.scores == "softmax":
            scores = (scores - whole).exp()
        return self.selection.mass(scores.sum(2) if scores.shape[2] > 1 else scores[:, :, 0])

    def dump(self, blocks: Tensor) -> dict[str, Tensor]:
        """See `Search.dump`."""
        return self.held.of(blocks)

    def restore(self, parts: Mapping[str, Sequence[Tensor]], device: torch.device) -> None:
        """See `Search.restore`."""
        self.held.restore(parts, device)

    @property
    def nbytes(self) -> int:
        """See `Search.nbytes`."""
        return self.held.nbytes


@dataclass(frozen=True)
class _Rows:
    """Some rows of a query, and where they search.

    Attributes:
        held: summaries of all blocks there.
        q: the queries (B, H, Q, D) in float32.
        total: blocks of every row, N.
        table: physical number of each (B, N), or None; see `Index.search`.
    """

    held: PageSummaries
    q: Tensor
    total: int
    table: Tensor | None

    @property
    def _own(self) -> Tensor | None:
        return None if self.table is None else self.table[:, : self.total].to(self.q.device)

    def rough(self) -> Tensor:
        """Scores (B, H, Q, N) by the means."""
        return self.held.rough(self.q, self.total, self._own)

    def pages(self, listed: Tensor) -> tuple[Tensor, Tensor]:
        """See `PageSummaries.pages`."""
        return self.held.pages(listed, self._own)


def _within(scores: Tensor, totals: Sequence[int]) -> Tensor:
    """Scores (B, X, N) with -inf for what a row does not have: rows of each total in turn."""
    for rows, total in zip(scores.split(len(scores) // len(totals)), totals, strict=True):
        if total < scores.shape[2]:
            rows[:, :, total:] = -math.inf
    return scores


def _fine(q: Tensor, codes: Tensor, steps: Tensor) -> Tensor:
    """Scores (B, H, Q, S) of blocks by the best of their pages; see `PageSummaries.pages`."""
    B, H, Q, D = q.shape
    U, S = steps.shape[1:]
    pages = codes.float().flatten(0, 1).transpose(1, 2)
    scores = torch.bmm(q.reshape(B * U, H // U * Q, D), pages)
    best = scores.view(B * U, H // U * Q, S, -1).amax(-1)
    return (best * steps.view(B * U, 1, S)).view(B, H, Q, S)


def _joined(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(tuple(parts))


def _side_by_side(scores: Sequence[Tensor]) -> Tensor:
    """Scores (b, H, Q, n) of several as those of (B, H, Q, N), with -inf where one has fewer."""
    most = max(some.shape[3] for some in scores)
    return _joined([F.pad(some, (0, most - some.shape[3]), value=-math.inf) for some in scores])


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
