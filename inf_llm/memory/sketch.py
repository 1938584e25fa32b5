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

GROUP = 64
"""Blocks that share a scale and an error, and are sketched together."""

_STEPS = 127
_SURE = 0.5 * 1.001  # of a step: what rounding can change, with room for float32 sums
_AT_ONCE = 1 << 8  # groups scored at a time, which then stay in the processor's cache
_FEW = 1 << 15  # products; up to so many all are looked at
_NARROW = 256  # widths up to this do with a query of 8 bits; wider sums need 15


@dataclass(frozen=True)
class Asked:
    """What the sketch says to X queries; a score is a product times its group's scale.

    Attributes:
        products: of the codes (groups, GROUP, X).
        best: greatest product of each group (groups, X).
        scales: what makes products scores, less that of the centre (groups, X).
        errors: how far the scores of a group can be off (groups, X).
    """

    products: Tensor
    best: Tensor
    scales: Tensor
    errors: Tensor


class Sketch:
    """int8 copies of V vectors of width W for every block, in groups. CPU only.

    Blocks behind the last full group are not sketched; they are candidates always.

    Args:
        vectors: V, vectors of a block.
        width: W.

    Attributes:
        count: how many blocks are sketched, counted from the first.
    """

    def __init__(self, vectors: int, width: int) -> None:
        self._codes = torch.empty(0, vectors, width, dtype=torch.int8)
        self._scales = torch.empty(0, vectors)  # of each group
        self._sums = torch.empty(0, vectors)  # greatest sum of absolute sketched values in a group
        self._centre: Tensor | None = None  # (V, 1, W)
        self.count = 0

    @staticmethod
    def available(device: torch.device) -> bool:
        """Whether integer products run here."""
        return device.type == "cpu" and hasattr(torch, "_int_mm")

    def forget(self, block: int) -> None:
        """The vectors of blocks from this one on are no longer what was sketched."""
        self.count = min(self.count, block // GROUP * GROUP)

    def put(self, vectors: Tensor, room: int) -> None:
        """Sketch the blocks (V, n, W) that follow the first `count`, as far as they fill groups.

        Args:
            vectors: of all blocks that are not sketched yet.
            room: blocks to have space for.
        """
        V, blocks, W = vectors.shape
        groups, first = blocks // GROUP, self.count // GROUP
        if not groups:
            return
        if room > len(self._codes):
            self._codes = _longer(self._codes, room)
            self._scales = _longer(self._scales, room // GROUP)
            self._sums = _longer(self._sums, room // GROUP)
        fresh = vectors[:, : groups * GROUP].float()
        if self._centre is None:
            self._centre = fresh.mean(1, keepdim=True)
        parts = (fresh - self._centre).view(V, groups, GROUP, W)
        scales = _scale(parts.flatten(2))  # (V, groups)
        codes = _rounded(parts.flatten(2), scales).view(V, -1, W)
        sums = codes.abs().sum(2, dtype=torch.int32).view(V, groups, GROUP).amax(2)
        self._codes[self.count : self.count + groups * GROUP] = codes.transpose(0, 1)
        self._scales[first : first + groups] = scales.t()
        self._sums[first : first + groups] = (scales * sums).t()
        self.count += groups * GROUP

    def ask(self, queries: Tensor, count: int) -> list[Asked]:
        """What is known of the blocks in full groups among the first `count`.

        Args:
            queries: (n, X, W), n questions of X queries; query x of each is meant for vector
                x // (X / V) of every block. They are answered in one reading of the codes.
            count: blocks.

        Returns:
            An answer to each question.
        """
        queries = queries.float()
        shared = queries.shape[1] // self._codes.shape[1]
        groups = min(self.count, count) // GROUP
        codes, steps = _coded(queries)
        products, best = self._multiply(codes, steps, groups)
        scales, sums = self._scales[:groups], self._sums[:groups]
        if shared > 1:
            scales, sums = (part.repeat_interleave(shared, 1) for part in (scales, sums))
        sizes = queries.abs().sum(2)  # (n, X)
        return [
            Asked(
                products[:, :, n],
                best[:, n],
                scales * steps[-1, n],
                # What rounding a vector, and then the query, can change.
                (scales * (sizes[n] * _SURE)).addcmul_(sums, steps[-1, n] * _SURE),
            )
            for n in range(len(queries))
        ]

    def _multiply(self, codes: Tensor, steps: Tensor, groups: int) -> tuple[Tensor, Tensor]:
        """Products (groups, GROUP, n, X) in units of the last steps, and the best of each group."""
        parts, *shape, _ = codes.shape
        spread = self._spread(codes)
        products, best = [], []
        for first in range(0, groups, _AT_ONCE):
            some = self._codes[first * GROUP : min(first + _AT_ONCE, groups) * GROUP]
            made = torch._int_mm(some.flatten(1), spread)
            if parts == 2:
                coarse, fine = made.chunk(2, 1)
                made = coarse * (steps[0] / steps[1]).flatten() + fine
            products.append(made.view(-1, GROUP, *shape))
            best.append(products[-1].amax(1).float())
        return _joined(products), _joined(best)

    def _spread(self, codes: Tensor) -> Tensor:
        """Query codes (P, n, X, W) as (V * W, P * n * X): each opposite to its own vector.

        One product with it reads every code once. The zeros elsewhere cost little: a matrix unit is
        wider than the few columns of one vector's queries.
        """
        vectors, width = self._codes.shape[1:]
        if vectors == 1:
            return codes.view(-1, width).t()
        own = codes.unflatten(2, (vectors, -1))  # (P, n, V, X / V, W)
        wide = own.new_zeros(*own.shape[:4], vectors, width)
        wide.diagonal(dim1=2, dim2=4).copy_(own.permute(0, 1, 3, 4, 2))
        return wide.view(-1, vectors * width).t().contiguous()

    def candidates(self, asked: Asked, count: int, topk: int) -> tuple[Tensor, Tensor]:
        """All blocks that can be among the `topk` best of the first `count`.

        A block is out when its upper bound is below the k-th best of lower bounds.

        Returns:
            Which query, ascending, and which block (m,) each.
        """
        groups, queries = asked.best.shape
        many = groups >= topk and asked.products.numel() > _FEW
        asks, blocks = (_likely_of_groups if many else _likely)(asked, topk)
        if groups * GROUP == count:
            return asks, blocks
        rest = torch.arange(groups * GROUP, count)
        asks = torch.cat((asks, torch.arange(queries).repeat_interleave(len(rest))))
        asks, order = asks.sort(stable=True)
        return asks, torch.cat((blocks, rest.repeat(queries)))[order]

    @property
    def nbytes(self) -> int:
        """Bytes of what is sketched; room that is not used yet is not counted."""
        groups = self.count // GROUP
        codes, scales = self._codes[: self.count], self._scales[:groups]
        return codes.nbytes + 2 * scales.nbytes


def _likely(asked: Asked, topk: int) -> tuple[Tensor, Tensor]:
    """Which query and which block, looking at every block."""
    scores = asked.products * asked.scales[:, None]
    errors = asked.errors[:, None]
    lower, upper = (scores - errors).flatten(0, 1), (scores + errors).flatten(0, 1)
    threshold = torch.tensor(-torch.inf)
    if len(lower) >= topk:
        threshold = lower.topk(topk, 0, sorted=False).values.amin(0)
    asks, blocks = (upper >= threshold).t().nonzero().unbind(1)
    return asks, blocks


def _likely_of_groups(asked: Asked, topk: int) -> tuple[Tensor, Tensor]:
    """The same and a few more, looking at blocks only where the best of their group is likely.

    The k-th best of lower bounds is taken over the best of every group; there must be k groups.
    """
    best = asked.best * asked.scales
    threshold = (best - asked.errors).topk(topk, 0, sorted=False).values.amin(0)
    asks, group = (best + asked.errors >= threshold).t().nonzero().unbind(1)
    scores = asked.products[group, :, asks] * asked.scales[group, asks, None]  # (m, GROUP)
    likely = scores >= (threshold[asks] - asked.errors[group, asks])[:, None]
    listed, offset = likely.nonzero().unbind(1)
    return asks[listed], group[listed] * GROUP + offset


def _coded(query: Tensor) -> tuple[Tensor, Tensor]:
    """Queries (..., W) in int8: codes (P, ..., W), and the value of a step of each part (P, ...).

    The second part, of wide queries, is what the first leaves over.
    """
    coarse = _scale(query)
    codes = _rounded(query, coarse)
    if query.shape[-1] <= _NARROW:
        return codes[None], coarse[None]
    left = query - codes * coarse[..., None]
    fine = _scale(left)
    return torch.stack((codes, _rounded(left, fine))), torch.stack((coarse, fine))


def _scale(values: Tensor) -> Tensor:
    """The step (...) with which values (..., n) fit int8."""
    return values.abs().amax(-1).clamp_(min=1e-30) / _STEPS


def _rounded(values: Tensor, scale: Tensor) -> Tensor:
    """int8 codes (..., n) with ``value = scale * code`` to half a step."""
    return torch.round(values / scale[..., None]).to(torch.int8)


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _longer(old: Tensor, room: int) -> Tensor:
    fresh = old.new_empty(room, *old.shape[1:])
    fresh[: len(old)] = old
    return fresh
