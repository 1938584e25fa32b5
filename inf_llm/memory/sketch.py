"""A coarse copy of many vectors that says, with certainty, which of them can be among the best.

Scoring a query against every representative reads them all from memory, and past some ten thousand
blocks that reading is most of a decode step on a CPU. The sketch keeps them in int8, a quarter of
the bytes, and knows how far each sketched score can be from the true one. Only vectors whose upper
bound reaches the k-th best lower bound need their true score, so the result is the exact one.
"""

from __future__ import annotations

import torch
from torch import Tensor

_STEPS = 127


class Sketch:
    """int8 copies of vectors (n, W), one scale each. CPU only.

    Attributes:
        count: how many vectors are sketched, counted from the first; lower it to have later ones
            set again.
    """

    def __init__(self, width: int) -> None:
        self._codes = torch.empty(0, width, dtype=torch.int8)
        self.count = 0
        self._weights = torch.empty(0, 2)  # scale, and the sum of the absolute sketched values

    @staticmethod
    def available(device: torch.device) -> bool:
        """Whether integer products run here."""
        return device.type == "cpu" and hasattr(torch, "_int_mm")

    def put(self, first: int, vectors: Tensor, room: int) -> None:
        """Set vectors (n, W) from number `first` on, in a table with space for `room`."""
        if room > len(self._codes):
            self._codes = _longer(self._codes, room)
            self._weights = _longer(self._weights, room)
        rows = slice(first, first + len(vectors))
        codes, scale = _quantised(vectors.float())
        self._codes[rows] = codes
        self._weights[rows, 0] = scale
        self._weights[rows, 1] = scale * codes.abs().sum(1, dtype=torch.int32)
        self.count = rows.stop

    def bounds(self, query: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Scores of the first `count` vectors for query (W,), each at most its error off.

        Returns:
            Scores (count,) and errors (count,).
        """
        query = query.float()
        high, step = _quantised(query[None])
        rest, fine = _quantised(query[None] - high * step[:, None])
        both = torch.cat((high, rest)).t().contiguous()  # (W, 2): the query to 15 bits
        products = torch._int_mm(self._codes[:count], both).float()
        weights = self._weights[:count]
        scores = torch.mv(products, torch.cat((step, fine))) * weights[:, 0]
        # What rounding a vector, and then the query, can change; a little more for float32 sums.
        change = torch.cat((query.abs().sum().view(1), fine)) * (0.5 * 1.001)
        return scores, torch.mv(weights, change) + scores.abs() * 1e-6

    def candidates(self, query: Tensor, count: int, topk: int) -> Tensor:
        """Numbers, ascending, of all vectors that can be among the `topk` best."""
        scores, errors = self.bounds(query, count)
        threshold = (scores - errors).topk(topk, sorted=False).values.min()
        return (scores + errors >= threshold).nonzero()[:, 0]

    @property
    def bytes_per_vector(self) -> int:
        """Bytes a vector takes."""
        return self._codes.shape[1] + 2 * self._weights.itemsize


def _quantised(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """int8 codes (n, W) and scales (n,) with ``vector = scale * code`` to half a scale."""
    scale = vectors.abs().amax(1).clamp_(min=1e-30) / _STEPS
    return torch.round(vectors / scale[:, None]).to(torch.int8), scale


def _longer(old: Tensor, room: int) -> Tensor:
    fresh = old.new_zeros(room, *old.shape[1:])
    fresh[: len(old)] = old
    return fresh
