"""A coarse copy of many vectors that says, with certainty, which of them can be among the best.

Scoring a query against every representative reads them all from memory, and past some ten thousand
blocks that reading is most of a decode step on a CPU. The sketch keeps them in int8, a quarter of
the bytes, and knows how much the true score of a block can exceed the sketched one. Given
the true scores of some blocks, all whose bound is below the k-th best of these can be left out.

What all vectors have in common says nothing about which is best, but would fill the int8 range:
models with biases have keys that are mostly one large constant. So a centre is taken off first.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

from inf_llm.native import sketch as native

GROUP = 16
"""Blocks that share a scale, and are sketched together."""

_STEPS = 127
_FEW = 1 << 15  # bounds; up to so many all are looked at
_SURE = 1.001  # room for float32 sums
_LARGEST = 1e15  # of values whose products float32 can hold
_EPSILON = 2.0**-23  # of float32
_FINEST = 1e-6  # of the greatest value: the finest step in which a difference means something
_AT_ONCE = 1 << 14  # blocks scored at a time, whose products then stay in the processor's cache
_NARROW = 1024  # widths up to this do with a query of 8 bits; wider sums need 16
FINE = 2 * _STEPS
"""Finer steps in one step of a query's codes."""


@dataclass(frozen=True)
class Bounds:
    """What the true scores of the sketched blocks cannot exceed, for X queries.

    The bound of a block is ``(product + slack) * scale * step + common``. Only product and scale
    are its own; the others are the query's: what rounding can hide, the value of a step of its
    codes, and the score of the centre.

    Attributes:
        products: of the codes (P, X, groups, GROUP), the second part `FINE` times finer.
        scales: of the codes of blocks (V, groups).
        facts: slack, step and common (3, X).
    """

    products: Tensor
    scales: Tensor
    facts: Tensor

    @property
    def count(self) -> int:
        """How many blocks there are bounds for, counted from the first."""
        return self.products.shape[2] * GROUP

    def highest(self, count: int) -> tuple[Tensor, Tensor]:
        """The `count` blocks (X, count) with the highest bounds, and each query's lowest (X,).

        No other block has a bound above it.
        """
        _, X, groups, _ = self.products.shape
        own = torch.arange(X)[:, None]
        if X * groups * GROUP <= _FEW or groups <= count:
            best = self._bounds(self._whole, self._own_scales).topk(count)
            return best.indices, best.values[:, -1]
        of_groups = self._bounds(self._whole.amax(2, keepdim=True), self._own_scales)
        chosen = of_groups.topk(count, sorted=False).indices  # (X, count)
        bounds = self._bounds(self._whole[own, chosen], self._own_scales[own, chosen])
        best = bounds.topk(count)
        blocks = chosen.gather(1, best.indices // GROUP) * GROUP + best.indices % GROUP
        return blocks, best.values[:, -1]

    def reaching(self, floor: Tensor) -> int:
        """How many blocks of a query at most have a bound of its floor (X,) or more."""
        bounds = self._bounds(self._whole, self._own_scales)
        return int((bounds >= floor[:, None]).sum(1).max())

    def _bounds(self, products: Tensor, scales: Tensor) -> Tensor:
        """Bounds (X, g * n) for products (X, g, n) in groups of these scales (X, g)."""
        slack, step, common = self.facts[:, :, None, None]
        values = (scales * step[..., 0])[..., None]  # of one product
        return torch.addcmul(common, products + slack, values).flatten(1)

    @functools.cached_property
    def _whole(self) -> Tensor:
        """Products (X, groups, GROUP) in the finest steps."""
        if len(self.products) == 1:
            return self.products[0]
        return self.products[1].float().add_(self.products[0], alpha=FINE)

    @functools.cached_property
    def _own_scales(self) -> Tensor:
        """Scales (X, groups) for every query."""
        return self.scales.repeat_interleave(len(self._whole) // len(self.scales), 0)


class Sketch:
    """int8 copies of V vectors of width W for every block, in groups. CPU only.

    Blocks behind the last full group are not sketched.

    Args:
        vectors: V, vectors of a block.
        width: W.

    Attributes:
        count: how many blocks are sketched, counted from the first.
        sound: whether float32 can hold what must be calculated; else the sketch is of no use.
    """

    def __init__(self, vectors: int, width: int) -> None:
        self._codes = torch.empty(0, vectors * width, dtype=torch.int8)
        self._scales = torch.empty(vectors, 0)  # of each group
        self._centre: Tensor | None = None  # (V, 1, W)
        # The longest of all blocks so far, in steps: what rounding took off, and what it left.
        self._lost = self._kept = 0.0
        self.count = 0
        self.sound = True

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
            self._codes = _longer(self._codes, room, 0)
            self._scales = _longer(self._scales, room // GROUP, 1)
        fresh = vectors[:, : groups * GROUP].float()
        most = float(fresh.abs().max())
        if not most <= _LARGEST:
            self.sound = False  # from now on; nothing more is sketched
            return
        if self._centre is None:
            self._centre = fresh.mean(1, keepdim=True)
        most += float(self._centre.abs().max())
        parts = (fresh - self._centre).view(V, groups, GROUP * W)
        steps = _step(parts).clamp_(min=most * _FINEST)  # (V, groups)
        exact = parts.div_(steps[..., None]).view(V, -1, W)
        codes = exact.round()
        self._kept = max(self._kept, float(codes.norm(dim=2).max()))
        self._codes[self.count : self.count + groups * GROUP] = codes.transpose(0, 1).flatten(1)
        rounding = most * _EPSILON * W**0.5 / float(steps.min())  # of the difference to the centre
        self._lost = max(self._lost, float(codes.sub_(exact).norm(dim=2).max()) + rounding)
        self._scales[:, first : first + groups] = steps
        self.count += groups * GROUP

    def ask(self, queries: Tensor, count: int) -> list[Bounds]:
        """What is known of the blocks in full groups among the first `count`.

        Args:
            queries: (n, X, W), n questions of X queries; query x of each is meant for vector
                x // (X / V) of every block. They are answered in one reading of the codes.
            count: blocks.

        Returns:
            An answer to each question.
        """
        assert self._centre is not None
        queries, parts = queries.float().contiguous(), parts_of(queries.shape[2])
        codes = self._codes[: min(self.count, count) // GROUP * GROUP]
        lost, kept = self._lost * _SURE, self._kept * _SURE
        answer = native.asked(queries, self._centre, codes, parts, FINE, lost, kept)
        if answer is None:
            rows, facts = self._coded(queries)
            answer = _multiplied(rows, codes).view(parts, *facts.shape[1:], -1), facts
        products, facts = answer
        products = products.unflatten(3, (-1, GROUP))  # (P, n, X, groups, GROUP)
        scales = self._scales[:, : products.shape[3]]
        return [Bounds(products[:, n], scales, facts[:, n]) for n in range(len(queries))]

    def find(
        self, query: Tensor, vectors: Tensor, topk: int, total: int
    ) -> tuple[Tensor, Tensor] | None:
        """The best `topk` of the first `total` blocks, in one go, where that can be done.

        Args:
            query: (X, W).
            vectors: what is sketched (V, room, W).
            topk: how many.
            total: blocks, with those that are not sketched.

        Returns:
            Blocks (X, topk), ascending, and their true scores; or None.
        """
        assert self._centre is not None
        known, parts = min(self.count, total) // GROUP * GROUP, parts_of(query.shape[1])
        errors = self._lost * _SURE, self._kept * _SURE
        sketched = self._centre, self._codes, self._scales, known
        return native.find(query, *sketched, parts, FINE, *errors, vectors, topk, total)

    def _coded(self, queries: Tensor) -> tuple[Tensor, Tensor]:
        """Queries (n, X, W) in int8.

        Returns:
            Rows (P * n * X, V * W), each with its query opposite to its own vector. One product
            with them reads every code once; the zeros elsewhere cost little, for a matrix unit is
            wider than the few queries of one vector. And the facts (3, n, X) for `Bounds`.
        """
        assert self._centre is not None
        V, _, W = self._centre.shape
        codes, steps, left = _in_steps(queries)
        lengths = (queries / steps[..., None]).norm(dim=2)
        # Where q = a + b and v = c + d, with codes a and c, q.v is a.c + b.c + q.d.
        slack = (lengths * self._lost + left * self._kept) * _SURE
        each = queries.unflatten(1, (V, -1))  # (n, V, X / V, W)
        common = (each * self._centre).sum(3).flatten(1)
        own = codes.unflatten(2, (V, -1))  # (P, n, V, X / V, W)
        wide = own.new_zeros(*own.shape[:4], V, W)
        wide.diagonal(dim1=2, dim2=4).copy_(own.permute(0, 1, 3, 4, 2))
        return wide.view(-1, V * W), torch.stack((slack, steps, common))

    @property
    def nbytes(self) -> int:
        """Bytes of what is sketched; room that is not used yet is not counted."""
        return self._codes[: self.count].nbytes + self._scales[:, : self.count // GROUP].nbytes


def parts_of(width: int) -> int:
    """How many int8 parts, P, a query of this width is put into."""
    return 1 if width <= _NARROW else 2


def _in_steps(queries: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Codes of queries (n, X, W).

    Returns:
        Codes (P, n, X, W), the second part in steps `FINE` times finer; the value of the finest
        step (n, X); and in such steps the length of what the codes leave over (n, X).
    """
    steps = _step(queries)
    exact = queries / steps[..., None]
    codes = exact.round()
    left = exact - codes
    if parts_of(queries.shape[2]) == 1:
        return codes[None].to(torch.int8), steps, left.norm(dim=2)
    left *= FINE
    fine = left.round()
    both = torch.stack((codes, fine)).to(torch.int8)
    return both, steps / FINE, left.sub_(fine).norm(dim=2)


def _multiplied(rows: Tensor, codes: Tensor) -> Tensor:
    """Products (rows, blocks) of coded queries with the codes of blocks."""
    if len(rows) == 1:  # a single row streams faster as a column
        return torch._int_mm(codes, rows.t()).t()
    products = [torch._int_mm(rows, some.t()) for some in codes.split(_AT_ONCE)]
    return products[0] if len(products) == 1 else torch.cat(products, 1)


def _step(values: Tensor) -> Tensor:
    """The step (...) with which values (..., n) fit int8."""
    return values.norm(torch.inf, -1).clamp_(min=1e-30) / _STEPS


def _longer(old: Tensor, room: int, dim: int) -> Tensor:
    shape = list(old.shape)
    shape[dim] = room
    fresh = old.new_empty(shape)
    fresh.narrow(dim, 0, old.shape[dim]).copy_(old)
    return fresh
