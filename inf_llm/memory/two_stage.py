"""Two-stage search: blocks by an estimate of their attention mass, head by head.

A block has P vectors per head: the mean keys of its pages. The score of a block for a query is the
largest product of the query with one of these vectors. With "softmax", a score becomes a share of
the head's attention over all blocks, so that heads with large scores do not dominate the others.
The shares of heads and queries are then added.

The first stage scores all blocks by the mean of their vectors. The second stage scores the best of
them again by their pages; the other blocks keep the scores of the first stage. This shortlist is
`shortlist` times as long as the number of blocks to find. Where all pages are few, there is one
stage: every block is scored by its pages. Page vectors are kept in int8: the rounding error is far
less than the difference between the mean of a page and its keys.
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
from inf_llm.native import loops

QUERIES = 4
"""Most mean queries of an execution block; blocks are scored for each of these queries."""

SCANNED = 1 << 18
"""Most numbers in the pages of all blocks that are scored in one stage: for so few, the steps of a
shortlist cost a CPU more than the products that the shortlist saves."""


class TwoStage(Search):
    """Search in two stages; see the module's docstring.

    Args:
        selection: the selection rule.
        shortlist: length of the shortlist, as a multiple of the number of blocks to find.

    Raises:
        SettingsError: the selection rule does not define `mass`.
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
        """See `Search.search_each`; searches with shortlists of equal length form a batch."""
        results: dict[int, Found] = {}
        members: list[Any] = list(searches)
        list_lengths = [
            one._list_length(topk, total) for one, total in zip(members, totals, strict=True)
        ]
        for list_length in dict.fromkeys(list_lengths):
            at = [row for row, length in enumerate(list_lengths) if length == list_length]
            some = [members[row] for row in at]
            rows = Query(query.vectors[at], query.scale)
            arguments = [totals[row] for row in at], [tables[row] for row in at]
            blocks, scores = some[0]._best(some, rows, topk, *arguments)
            results |= zip(at, zip(blocks.split(1), scores.split(1), strict=True), strict=True)
        return [results[row] for row in range(len(searches))]

    def _best(
        self,
        searches: Sequence[TwoStage],
        query: Query,
        topk: int,
        totals: Sequence[int],
        tables: Sequence[Tensor | None],
    ) -> Found:
        """Find the best blocks of all rows; each search has the same number of rows, in order."""
        # float32, because products of several rows in half precision are many times slower on CPUs
        q = query.means(QUERIES).float() * query.scale  # (B, H, Q, D)
        arguments = zip(searches, _split(q, len(searches)), totals, tables, strict=True)
        rows = [_Rows(search.held, part, total, table) for search, part, total, table in arguments]
        list_length = self._list_length(topk, totals[0])
        if list_length is None:
            scores = _padded([_page_scores(part.q, *part.all_pages()) for part in rows])
        else:
            scores = _padded([part.mean_scores() for part in rows])  # (B, H, Q, N)
            if self.held.has_pages:
                shortlisted, _ = self._top(self._shares(scores), totals, list_length)  # (B, X, S)
                self._score_pages(rows, q, shortlisted, scores)
        return ascending(*self._top(self._shares(scores), totals, topk))

    @staticmethod
    def _score_pages(rows: Sequence[_Rows], q: Tensor, shortlisted: Tensor, scores: Tensor) -> None:
        """Replace the scores (B, H, Q, N) of shortlisted blocks (B, X, S) by page scores."""
        lists = zip(rows, _split(shortlisted, len(rows)), strict=True)
        pages = _together([part.pages(blocks) for part, blocks in lists])
        scores.scatter_(3, _of_heads(shortlisted, q), _page_scores(q, *pages))

    def _list_length(self, topk: int, total: int) -> int | None:
        """Return the length of a shortlist of `total` blocks; None for one stage without it."""
        length = self.shortlist * topk
        if self.held.has_pages and (total <= length or self.held.page_numbers(total) <= SCANNED):
            return None
        return min(length, total)

    def _shares(self, scores: Tensor) -> Tensor:
        """Return scores (B, H, Q, N), for "softmax" as shares of attention over all N blocks."""
        if self.selection.scores != "softmax":
            return scores
        return loops.softmax(scores) if loops.takes(scores) else scores.softmax(-1)

    def _added(self, shares: Tensor) -> Tensor:
        """Add shares (B, H, Q, N) over queries and heads, for each chooser (B, X, N)."""
        return self.selection.mass(shares.sum(2) if shares.shape[2] > 1 else shares[:, :, 0])

    def _top(self, shares: Tensor, totals: Sequence[int], count: int) -> Found:
        """Return the `count` best blocks of each chooser (B, X, count), in any order."""
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
    """Rows of a query that search the same summaries.

    Attributes:
        held: summaries of all blocks of the store.
        q: queries (B, H, Q, D) in float32.
        total: number of blocks of every row, N.
        table: physical numbers of the blocks (B, N), or None; see `Index.search`.
    """

    held: PageSummaries
    q: Tensor
    total: int
    table: Tensor | None

    @property
    def _cut_table(self) -> Tensor | None:
        return None if self.table is None else self.table[:, : self.total].to(self.q.device)

    def mean_scores(self) -> Tensor:
        """Return scores (B, H, Q, N) of all blocks by their means."""
        return self.held.mean_scores(self.q, self.total, self._cut_table)

    def pages(self, shortlisted: Tensor) -> tuple[Tensor, Tensor]:
        """See `PageSummaries.pages`."""
        return self.held.pages(shortlisted, self._cut_table)

    def all_pages(self) -> tuple[Tensor, Tensor]:
        """See `PageSummaries.all_pages`."""
        return self.held.all_pages(len(self.q), self.total, self._cut_table)


def _split(rows: Tensor, count: int) -> Sequence[Tensor]:
    """Split rows (B, ...) into `count` equal parts; one part costs no operation."""
    return (rows,) if count == 1 else rows.split(len(rows) // count)


def _within(scores: Tensor, totals: Sequence[int]) -> Tensor:
    """Set scores (B, X, N) to -inf, in place, beyond the number of blocks of each row.

    Each total is that of B / len(totals) consecutive rows.
    """
    for rows, total in zip(_split(scores, len(totals)), totals, strict=True):
        if total < scores.shape[2]:
            rows[:, :, total:] = -math.inf
    return scores


def _page_scores(q: Tensor, codes: Tensor, steps: Tensor) -> Tensor:
    """Return scores (B, H, Q, S) of blocks by their best pages; see `PageSummaries.pages`."""
    if loops.takes(q):
        return loops.page_scores(q, codes, steps)
    B, H, Q, D = q.shape
    U, S = steps.shape[1:]
    pages = codes.float().flatten(0, 1).transpose(1, 2)
    scores = torch.bmm(q.reshape(B * U, H // U * Q, D), pages)
    best = scores.view(B * U, H // U * Q, S, -1).amax(-1)
    return (best * steps.view(B * U, 1, S)).view(B, H, Q, S)


def _together(parts: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, ...]:
    """Concatenate the pages of the rows of several searches."""
    return parts[0] if len(parts) == 1 else tuple(map(torch.cat, zip(*parts, strict=True)))


def _padded(scores: Sequence[Tensor]) -> Tensor:
    """Return the scores (B, H, Q, N) of all rows, with -inf beyond a row's last block."""
    if len(scores) == 1:
        return scores[0]
    most = max(some.shape[3] for some in scores)
    return torch.cat([F.pad(some, (0, most - some.shape[3]), value=-math.inf) for some in scores])


def _of_heads(shortlisted: Tensor, q: Tensor) -> Tensor:
    """Return the choosers' shortlisted blocks (B, X, S) for each head and query, (B, H, Q, S)."""
    H, Q = q.shape[1:3]
    X = shortlisted.shape[1]
    of_heads = shortlisted if X in (1, H) else shortlisted.repeat_interleave(H // X, 1)
    return of_heads[:, :, None].expand(-1, H, Q, -1)
