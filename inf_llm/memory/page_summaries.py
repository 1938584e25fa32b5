"""What a search by pages knows of blocks: the mean of each, and its pages in int8."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from inf_llm.memory.chunks import Chunks
from inf_llm.memory.index import joined

_LARGEST = 127  # of int8


class PageSummaries:
    """P vectors of D numbers for each block and each of Y heads; with P = 1 only the mean."""

    def __init__(self) -> None:
        self._means = Chunks()  # of a block's pages (Y, n, D)
        self._codes = Chunks()  # of the pages in int8 (Y, n, P, D); nothing where P = 1
        self._steps = Chunks()  # what one is worth in the codes of a block (Y, n)
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
        """Whether there is more than the means."""
        return self._codes.count > 0

    def rough(self, q: Tensor, total: int, own: Tensor | None) -> Tensor:
        """Scores of every row's blocks by their means.

        Args:
            q: queries (B, H, Q, D), float32.
            total: blocks of every row, N.
            own: physical number of each (B, N), or None; see `Index.search`.

        Returns:
            (B, H, Q, N).
        """
        B, H, Q, D = q.shape
        means = self._means.parts(total if own is None else self._means.count)
        Y = self._means.width
        asked = q.reshape(B, Y, H // Y * Q, D).transpose(0, 1).reshape(Y, -1, D)
        scores = joined([torch.bmm(asked, part.float().transpose(1, 2)) for part in means])
        scores = scores.view(Y, B, H // Y, Q, -1).transpose(0, 1).reshape(B, H, Q, -1)
        if own is not None:
            scores = scores.gather(3, own[:, None, None].expand(B, H, Q, -1))
        return scores

    def pages(self, listed: Tensor, own: Tensor | None) -> tuple[Tensor, Tensor]:
        """Pages of listed blocks (B, X, S), in U lists: every chooser's, of every head it has.

        Returns:
            Codes (B, U, S * P, D), and what one is worth in each block (B, U, S).
        """
        Y, X = self._codes.width, listed.shape[1]
        if own is not None:
            listed = own[:, None].expand(-1, X, -1).gather(2, listed)
        if 1 < X < Y:
            listed = listed.repeat_interleave(Y // X, 1)
        U = max(X, Y)
        heads = torch.arange(U, device=listed.device)
        if U > Y:
            heads //= U // Y
        codes = self._codes.rows(heads, listed)  # (B, U, S, P, D)
        return codes.flatten(2, 3), self._steps.rows(heads, listed)

    def all_pages(self, rows: int, total: int, own: Tensor | None) -> tuple[Tensor, Tensor]:
        """Pages of all blocks of so many rows, of every head; see `pages` and `rough`.

        Returns:
            Codes (B, Y, N * P, D), and what one is worth in each block (B, Y, N).
        """
        if own is not None:
            return self.pages(torch.arange(total, device=own.device).expand(rows, 1, -1), own)
        codes, steps = self._codes.first(total), self._steps.first(total)
        return codes.flatten(1, 2).expand(rows, -1, -1, -1), steps.expand(rows, -1, -1)

    def of(self, blocks: Tensor) -> dict[str, Tensor]:
        """What is held of blocks (n,), as tensors (Y, n, ...)."""
        return {name: held.of(blocks) for name, held in self._parts.items() if held.count}

    def restore(self, parts: Mapping[str, Sequence[Tensor]], device: torch.device) -> None:
        """Hold what `of` gave of blocks 0, 1, ..., part after part."""
        for name, held in self._parts.items():
            held.restore(parts.get(name, ()), device)

    @property
    def _parts(self) -> dict[str, Chunks]:
        return {"means": self._means, "codes": self._codes, "steps": self._steps}

    @property
    def nbytes(self) -> int:
        """Bytes of what is held; the room that is not used yet is not counted."""
        return sum(held.nbytes for held in self._parts.values())


def _rounded(pages: Tensor) -> tuple[Tensor, Tensor]:
    """Pages (Y, n, P, D) in int8, and what one is worth in each block (Y, n)."""
    steps = pages.flatten(2).float().norm(torch.inf, -1).clamp_(min=1e-30) / _LARGEST
    return (pages.float() / steps[..., None, None]).round().to(torch.int8), steps
