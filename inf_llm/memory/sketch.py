"""A coarse copy of many vectors that says, with certainty, which of them can be among the best.

Scoring a query against every representative reads them all from memory, and past some ten thousand
blocks that reading is most of a decode step on a CPU. The sketch keeps them in int8, a quarter of
the bytes, and knows how far each sketched score can be from the true one. Only vectors whose upper
bound reaches the k-th best lower bound need their true score, so the result is the exact one.

What all vectors have in common says nothing about which is best, but would fill the int8 range:
models with biases have keys that are mostly one large constant. So a centre is taken off first.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_STEPS = 127
_SURE = 0.5 * 1.001  # of a step: what rounding can change, with room for float32 sums
_AT_ONCE = 1 << 14  # blocks bounded at a time, which then stay in the processor's cache
_GROUP = 64  # blocks whose best bound is looked at before their own; divides _AT_ONCE
_NARROW = 256  # widths up to this do with a query of 8 bits; wider sums need 15


@dataclass(frozen=True)
class _Asked:
    """Queries as they meet the codes.

    Attributes:
        codes: int8, as `Sketch._spread` lays them out.
        steps: scales of the coarse codes, and of those of what they leave over, (P, X, 1).
        size: sum of the absolute values of each query (X, 1).
    """

    codes: Tensor
    steps: Tensor
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
        self._scales = torch.empty(vectors, 0)
        self._sums = torch.empty(vectors, 0)  # of the absolute sketched values
        self._centre: Tensor | None = None  # (V, 1, W)
        self.count = 0

    @staticmethod
    def available(device: torch.device) -> bool:
        """Whether integer products run here."""
        return device.type == "cpu" and hasattr(torch, "_int_mm")

    def put(self, first: int, vectors: Tensor, room: int) -> None:
        """Set the vectors (V, n, W) of blocks from `first` on, in a table with space for `room`."""
        if room > len(self._codes):
            self._codes = _longer(self._codes, room, 0)
            self._scales = _longer(self._scales, room, 1)
            self._sums = _longer(self._sums, room, 1)
        vectors = vectors.float()
        if self._centre is None:
            self._centre = vectors.mean(1, keepdim=True)
        codes, scale = _quantised(vectors - self._centre)
        self.count = first + vectors.shape[1]
        self._codes[first : self.count] = codes.transpose(0, 1)
        self._scales[:, first : self.count] = scale
        self._sums[:, first : self.count] = scale * codes.abs().sum(2, dtype=torch.int32)

    def candidates(self, query: Tensor, count: int, topk: int) -> tuple[Tensor, Tensor]:
        """All blocks that can be among the `topk` best of the first `count`, for queries (X, W).

        A block is out when its upper bound is below the k-th best of lower bounds; that may be
        taken over the best of every few blocks, and most upper bounds are seen in passing only.

        Returns:
            Which query, ascending, and which block (m,) each.
        """
        asked, queries = self._prepared(query), len(query)
        groups = -(-count // _GROUP)
        upper = torch.full((queries, groups * _GROUP), -torch.inf)
        lower = torch.full((queries, groups), -torch.inf)
        highest = torch.empty(queries, groups)
        for first in range(0, count, _AT_ONCE):
            last = min(first + _AT_ONCE, count)
            part = slice(first // _GROUP, -(-last // _GROUP))
            scores, errors = self._bounds(asked, first, last)
            torch.add(scores, errors, out=upper[:, first:last])
            highest[:, part] = _best_of_groups(upper[:, part.start * _GROUP : part.stop * _GROUP])
            if groups >= topk:
                lower[:, part] = _best_of_groups(scores.sub_(errors))
        if groups < topk:
            scores, errors = self._bounds(asked, 0, count)
            lower = scores - errors
        threshold = lower.topk(topk, sorted=False).values.amin(1, keepdim=True)
        asks, group = (highest >= threshold).nonzero().unbind(1)
        likely = upper.view(queries, groups, _GROUP)[asks, group] >= threshold[asks]
        listed, offset = likely.nonzero().unbind(1)
        return asks[listed], group[listed] * _GROUP + offset

    def bounds(self, query: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Scores of the first `count` blocks, less that of the centre, each at most its error off.

        Args:
            query: (X, W); query x is meant for vector x // (X / V) of every block.
            count: blocks.

        Returns:
            Scores and errors (X, count).
        """
        return self._bounds(self._prepared(query), 0, count)

    def _prepared(self, query: Tensor) -> _Asked:
        query = query.float()
        codes, step = _quantised(query)
        parts, steps = [codes], [step]
        if query.shape[1] > _NARROW:
            rest, fine = _quantised(query - codes * step[:, None])
            parts, steps = [codes, rest], [step, fine]
        size = query.abs().sum(1, keepdim=True)
        return _Asked(self._spread(torch.stack(parts)), torch.stack(steps)[..., None], size)

    def _spread(self, codes: Tensor) -> Tensor:
        """Query codes (P, X, W) as (V * W, P * X): each opposite to its own vector, else zero.

        One product with it reads every code once. The zeros cost little: a matrix unit is wider
        than the few columns of one vector's queries.
        """
        parts, queries, width = codes.shape
        vectors = self._codes.shape[1]
        wide = codes.new_zeros(parts, vectors, queries // vectors, vectors, width)
        own = codes.view(parts, vectors, -1, width).permute(0, 2, 3, 1)  # (P, X / V, W, V)
        wide.diagonal(dim1=1, dim2=3).copy_(own)
        return wide.view(parts * queries, vectors * width).t().contiguous()

    def _bounds(self, asked: _Asked, first: int, last: int) -> tuple[Tensor, Tensor]:
        """Scores and errors (X, n) of blocks `first` to `last - 1`."""
        parts, queries = asked.steps.shape[:2]
        shared = queries // self._codes.shape[1]
        scales, sums = (
            x[:, first:last].repeat_interleave(shared, 0) for x in (self._scales, self._sums)
        )
        products = torch._int_mm(self._codes[first:last].flatten(1), asked.codes)
        products = products.t().contiguous().float().view(parts, queries, -1)
        scores = products[0] * asked.steps[0]
        if parts == 2:
            scores.addcmul_(products[1], asked.steps[1])
        # What rounding a vector, and then the query, can change.
        errors = (scales * (asked.size * _SURE)).addcmul_(sums, asked.steps[-1] * _SURE)
        return scores.mul_(scales), errors

    @property
    def bytes_per_block(self) -> int:
        """Bytes that all vectors of a block take."""
        return self._codes[:1].nbytes + self._scales[:, :1].nbytes + self._sums[:, :1].nbytes


def _best_of_groups(values: Tensor) -> Tensor:
    """The greatest of every `_GROUP` values (X, n), the last group perhaps smaller."""
    rest = -values.shape[1] % _GROUP
    if rest:
        values = torch.nn.functional.pad(values, (0, rest), value=-torch.inf)
    return values.unflatten(1, (-1, _GROUP)).amax(2)


def _quantised(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """int8 codes (..., W) and scales (...) with ``vector = scale * code`` to half a scale."""
    scale = vectors.abs().amax(-1).clamp_(min=1e-30) / _STEPS
    return torch.round(vectors / scale[..., None]).to(torch.int8), scale


def _longer(old: Tensor, room: int, dim: int) -> Tensor:
    shape = list(old.shape)
    shape[dim] = room
    fresh = old.new_zeros(shape)
    fresh.narrow(dim, 0, old.shape[dim]).copy_(old)
    return fresh
