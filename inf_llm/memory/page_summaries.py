"""Summaries of blocks for the two-stage search: one mean per block, and page vectors in int8."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from inf_llm.memory.chunks import Chunks
from inf_llm.memory.index import joined

_LARGEST = 127  # of int8


class PageSummaries:
    """P page vectors of width D for each block and each of Y heads, and their mean.

    A page here is a run of neighbouring tokens of a block. With P = 1, only the mean is kept.
    """

    def __init__(self) -> None:
        self._means = Chunks()  # of a block's pages (Y, n, D)
        self._codes = Chunks()  # of the pages in int8 (Y, n, P, D); empty where P = 1
        self._steps = Chunks()  # size of one code step in each block (Y, n)
        self._lock = threading.Lock()

    def put(self, blocks: Tensor, pages: Tensor) -> None:
        """Set the pages (Y, n, P, D) of blocks (n,)."""
        with self._lock:
            self._means.put(blocks, pages.mean(2, dtype=torch.float32).to(pages.dtype))
            if pages.shape[2] > 1:
                codes, steps = _rounded(pages)
                self._codes.put(blocks, codes)
                self._steps.put(blocks, steps)

    @property
    def has_pages(self) -> bool:
        """Whether page vectors are kept, and not only means."""
        return self._codes.count > 0

    def page_numbers(self, blocks: int) -> int:
        """Return how many numbers the page vectors of the first `blocks` blocks have."""
        return blocks * (self._codes.nbytes // self._codes.count)  # int8: a byte each

    def mean_scores(self, q: Tensor, total: int, table: Tensor | None) -> Tensor:
        """Return scores (B, H, Q, N) of every row's blocks by their means.

        Args:
            q: queries (B, H, Q, D), float32.
            total: number of blocks of every row, N.
            table: physical numbers of the blocks (B, N), or None; see `Index.search`.

        Returns:
            Scores (B, H, Q, N).
        """
        B, H, Q, D = q.shape
        means = self._means.parts(total if table is None else self._means.count)
        Y = self._means.width
        queries = q.reshape(B, Y, H // Y * Q, D).transpose(0, 1).reshape(Y, -1, D)
        scores = joined([torch.bmm(queries, part.float().transpose(1, 2)) for part in means])
        scores = scores.view(Y, B, H // Y, Q, -1).transpose(0, 1).reshape(B, H, Q, -1)
        if table is not None:
            scores = scores.gather(3, table[:, None, None].expand(B, H, Q, -1))
        return scores

    def pages(self, shortlisted: Tensor, table: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the page vectors of shortlisted blocks (B, X, S), for U = max(X, Y) heads.

        X is the number of choosers. A chooser with several of the Y heads gets its blocks' pages
        of each; choosers that share a head get the pages of that head.

        Returns:
            Codes (B, U, S * P, D), and the size of one code step in each block (B, U, S).
        """
        Y, X = self._codes.width, shortlisted.shape[1]
        if table is not None:
            shortlisted = table[:, None].expand(-1, X, -1).gather(2, shortlisted)
        if 1 < X < Y:
            shortlisted = shortlisted.repeat_interleave(Y // X, 1)
        U = max(X, Y)
        heads = torch.arange(U, device=shortlisted.device)
        if U > Y:
            heads //= U // Y
        codes = self._codes.rows(heads, shortlisted)  # (B, U, S, P, D)
        return codes.flatten(2, 3), self._steps.rows(heads, shortlisted)

    def all_pages(self, rows: int, total: int, table: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the page vectors of all blocks of `rows` rows; see `pages` and `mean_scores`.

        Returns:
            Codes (B, Y, N * P, D), and the size of one code step in each block (B, Y, N).
        """
        if table is not None:
            return self.pages(torch.arange(total, device=table.device).expand(rows, 1, -1), table)
        codes, steps = self._codes.first(total), self._steps.first(total)
        return codes.flatten(1, 2).expand(rows, -1, -1, -1), steps.expand(rows, -1, -1)

    def of(self, blocks: Tensor) -> dict[str, Tensor]:
        """Return the summaries of blocks (n,), as tensors (Y, n, ...) by name."""
        return {name: held.of(blocks) for name, held in self._parts.items() if held.count}

    def restore(self, parts: Mapping[str, Sequence[Tensor]], device: torch.device) -> None:
        """Set the summaries of blocks 0, 1, ..., as `of` returns them, in parts."""
        for name, held in self._parts.items():
            held.restore(parts.get(name, ()), device)

    @property
    def _parts(self) -> dict[str, Chunks]:
        return {"means": self._means, "codes": self._codes, "steps": self._steps}

    @property
    def nbytes(self) -> int:
        """Bytes of the summaries, without unused room."""
        return sum(held.nbytes for held in self._parts.values())


def _rounded(pages: Tensor) -> tuple[Tensor, Tensor]:
    """Quantise page vectors (Y, n, P, D) to int8; return codes and step sizes (Y, n)."""
    steps = pages.flatten(2).float().norm(torch.inf, -1).clamp_(min=1e-30) / _LARGEST
    return (pages.float() / steps[..., None, None]).round().to(torch.int8), steps
