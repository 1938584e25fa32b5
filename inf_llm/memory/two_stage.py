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
        few = self.shortlist * topk
        if not self.held.has_pages:
            return ascending(*self._top(self._shares(_rough(rows)), totals, topk))
        if min(totals) == max(totals) <= few:  # all of them would be listed
            fine = _fine(q, *_together([each.all_pages() for each in rows]))
            return ascending(*self._top(self._shares(fine), totals, topk))
        rough = _rough(rows)  # (B, H, Q, N)
        shares = self._shares(rough)
        listed, _ = self._top(shares, totals, min(*totals, few))  # (B, X, S)
        own_lists = zip(rows, listed.split(len(q) // len(rows)), strict=True)
        fine = _fine(q, *_together([each.pages(own) for each, own in own_lists]))  # (B, H, Q, S)
        if self.selection.scores == "softmax":
            rest = _rest(rough, shares, _of(shares, listed))
            fine = torch.cat((fine, rest), -1).softmax(-1)[..., :-1]
        best = self._added(fine).topk(topk, sorted=False)
        return ascending(listed.gather(2, best.indices), best.values)

    def _shares(self, scores: Tensor) -> Tensor:
        """What scores of all blocks (B, H, Q, N) count as: a head's shares of attention, or so."""
        return scores.softmax(-1) if self.selection.scores == "softmax" else scores

    def _added(self, shares: Tensor) -> Tensor:
        """What scores (B, H, Q, N) of heads and queries count as, for each chooser (B, X, N)."""
        return self.selection.mass(shares.sum(2) if shares.shape[2] > 1 else shares[:, :, 0])

    def _top(self, shares: Tensor, totals: Sequence[int], count: int) -> Found:
        """The best blocks of each chooser in any order, (B, X, count)."""
        scores, blocks = _within(self._added(shares), totals).topk(count, sorted=False)
        return blocks, scores

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

    def all_pages(self) -> tuple[Tensor, Tensor]:
        """See `PageSummaries.all_pages`."""
        return self.held.all_pages(len(self.q), self.total, self._own)


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


def _together(parts: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, ...]:
    """Pages of several searches' rows as those of all rows."""
    return parts[0] if len(parts) == 1 else tuple(map(torch.cat, zip(*parts, strict=True)))


def _rough(rows: Sequence[_Rows]) -> Tensor:
    """Scores by the means (B, H, Q, N) of all rows, with -inf where a row has fewer blocks."""
    scores = [each.rough() for each in rows]
    if len(scores) == 1:
        return scores[0]
    most = max(some.shape[3] for some in scores)
    return torch.cat([F.pad(some, (0, most - some.shape[3]), value=-math.inf) for some in scores])


def _of(scores: Tensor, listed: Tensor) -> Tensor:
    """Scores (B, H, Q, N) of each head's listed blocks (B, X, S): (B, H, Q, S)."""
    B, H, Q, _ = scores.shape
    X = listed.shape[1]
    own = listed if X in (1, H) else listed.repeat_interleave(H // X, 1)
    return scores.gather(3, own[:, :, None].expand(B, H, Q, -1))


def _rest(scores: Tensor, shares: Tensor, listed: Tensor) -> Tensor:
    """What all blocks that are not listed score together (B, H, Q, 1), as a log-sum.

    Args:
        scores: of all blocks (B, H, Q, N).
        shares: their softmax.
        listed: shares of those that are listed (B, H, Q, S).
    """
    left = (1 - listed.sum(-1, keepdim=True)).clamp_(min=1e-20)
    # a block's score is the log-sum of all plus the log of its share; the largest is never 0
    return (left / shares.amax(-1, keepdim=True)).log_().add_(scores.amax(-1, keepdim=True))
