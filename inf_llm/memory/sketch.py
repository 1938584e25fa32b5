"""A coarse copy of many vectors that says, with certainty, which of them can be among the best.

Scoring a query against every representative reads them all from memory, and past some ten thousand
blocks that reading is most of a decode step on a CPU. The sketch keeps them in int8, a quarter of
the bytes, and knows how far each sketched score can be from the true one. Only vectors whose upper
bound reaches the k-th best lower bound need their true score, so the result is the exact one.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_STEPS = 127
_HALF = 0.5 * 1.001  # of a step, what rounding can change, with room for float32 sums
_AT_ONCE = 1 << 14


@dataclass(frozen=True)
class _Asked:
    """Queries as they meet the codes.

    Attributes:
        codes: as `Sketch._spread` lays them out.
        step: scale of the coarse codes (X,).
        fine: scale of the codes of what those leave over (X,).
        size: sum of the absolute values of each query (X,).
    """

    codes: Tensor
    step: Tensor
    fine: Tensor
    size: Tensor


class Sketch:
    """int8 copies of V vectors of width W for every block, one scale each. CPU only.

    Args:
        vectors: V, vectors of a block.
        width: W.

    Attributes:
        count: how many blocks are sketched, counted from the first; lower it to have later ones
            set again.
    """

    def __init__(self, vectors: int, width: int) -> None:
        self._codes = torch.empty(0, vectors, width, dtype=torch.int8)
        self._scales = torch.empty(0, vectors)
        self._sums = torch.empty(0, vectors)  # of the absolute sketched values
        self.count = 0

    @staticmethod
    def available(device: torch.device) -> bool:
        """Whether integer products run here."""
        return device.type == "cpu" and hasattr(torch, "_int_mm")

    def put(self, first: int, vectors: Tensor, room: int) -> None:
        """Set the vectors (V, n, W) of blocks from `first` on, in a table with space for `room`."""
        if room > len(self._codes):
            self._codes = _longer(self._codes, room)
            self._scales = _longer(self._scales, room)
            self._sums = _longer(self._sums, room)
        rows = slice(first, first + vectors.shape[1])
        codes, scale = _quantised(vectors.float())
        self._codes[rows] = codes.transpose(0, 1)
        self._scales[rows] = scale.t()
        self._sums[rows] = (scale * codes.abs().sum(2, dtype=torch.int32)).t()
        self.count = rows.stop

    def candidates(self, query: Tensor, count: int, topk: int) -> Tensor:
        """Which blocks can be among the `topk` best of each query (X, W): a mask (X, count).

        Bounds are made for a few thousand blocks at a time, which stay in the processor's cache.
        """
        asked = self._prepared(query)
        upper = torch.empty(len(query), count)
        best = []  # lower bounds; the k-th best of all is the k-th best of every part's k best
        for first in range(0, count, _AT_ONCE):
            last = min(first + _AT_ONCE, count)
            scores, errors = self._bounds(asked, first, last)
            torch.add(scores.t(), errors.t(), out=upper[:, first:last])
            lower = (scores - errors).t().contiguous()
            best.append(lower.topk(min(topk, last - first), sorted=False).values)
        threshold = torch.cat(best, 1).topk(topk, sorted=False).values.amin(1, keepdim=True)
        return upper >= threshold

    def bounds(self, query: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Scores of the first `count` blocks for queries (X, W), each at most its error off.

        Query x is meant for vector x // (X / V) of every block.

        Returns:
            Scores (count, X) and errors (count, X).
        """
        return self._bounds(self._prepared(query), 0, count)

    def _prepared(self, query: Tensor) -> _Asked:
        query = query.float()
        high, step = _quantised(query)
        rest, fine = _quantised(query - high * step[:, None])
        codes = self._spread(torch.stack((high, rest)))  # the query to 15 bits
        return _Asked(codes, step, fine, query.abs().sum(1))

    def _bounds(self, asked: _Asked, first: int, last: int) -> tuple[Tensor, Tensor]:
        """Scores and errors (n, X) of blocks `first` to `last - 1`."""
        shared = len(asked.step) // self._codes.shape[1]
        scales, sums = self._scales[first:last], self._sums[first:last]
        if shared > 1:
            scales, sums = (x.repeat_interleave(shared, 1) for x in (scales, sums))
        products = torch._int_mm(self._codes[first:last].flatten(1), asked.codes).float()
        coarse, finer = products.view(last - first, 2, -1).unbind(1)
        scores = torch.addcmul(coarse * asked.step, finer, asked.fine).mul_(scales)
        # What rounding a vector, and then the query, can change; a little more for float32 sums.
        errors = (scales * (asked.size * _HALF)).addcmul_(sums, asked.fine * _HALF)
        return scores, errors.add_(scores.abs(), alpha=1e-6)

    def _spread(self, codes: Tensor) -> Tensor:
        """Query codes (2, X, W) as (V * W, 2 * X), each opposite to its own vector, zero elsewhere.

        One product with it reads every code once. The zeros cost little: a matrix unit is wider
        than the few columns of one vector's queries.
        """
        parts, queries, width = codes.shape
        vectors = self._codes.shape[1]
        wide = codes.new_zeros(vectors, width, parts, vectors, queries // vectors)
        own = codes.view(parts, vectors, -1, width).permute(3, 0, 2, 1)  # (W, 2, X / V, V)
        wide.diagonal(dim1=0, dim2=3).copy_(own)
        return wide.view(vectors * width, parts * queries)

    @property
    def bytes_per_block(self) -> int:
        """Bytes that all vectors of a block take."""
        return self._codes[:1].nbytes + self._scales[:1].nbytes + self._sums[:1].nbytes


def _quantised(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """int8 codes (..., W) and scales (...) with ``vector = scale * code`` to half a scale."""
    scale = vectors.abs().amax(-1).clamp_(min=1e-30) / _STEPS
    return torch.round(vectors / scale[..., None]).to(torch.int8), scale


def _longer(old: Tensor, room: int) -> Tensor:
    fresh = old.new_zeros(room, *old.shape[1:])
    fresh[: len(old)] = old
    return fresh
