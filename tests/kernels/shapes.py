"""Calls that every kernel must answer alike."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from inf_llm.kernels import Band, Scoring, reference


@dataclass(frozen=True)
class Shape:
    """B rows, H query heads for G key heads, Q queries, K keys, key and value width."""

    B: int = 1
    H: int = 4
    G: int = 2
    Q: int = 20
    K: int = 33
    D: int = 16
    Dv: int = 16


SHAPES = {
    "grouped": Shape(),
    "own heads, rows": Shape(B=2, G=4),
    "one key head": Shape(G=1),
    "one query": Shape(B=2, Q=1),
    "few queries": Shape(Q=5, K=12),
    "wide values": Shape(Dv=24),
    "narrow values": Shape(Dv=8, Q=1),
    "odd width": Shape(D=18, Dv=18),
    "one key": Shape(K=1),
}
BANDS = {
    "all": None,
    "causal": Band(13),
    "more queries than keys": Band(-4),
    "window": Band(13, 0, 6),
    "behind": Band(13, 4),
    "some blind": Band(2, 8),
    "past the end": Band(30, 0, 9),
    "nothing": Band(0, 50),
}


def random_call(
    shape: Shape, dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu"
) -> tuple[Tensor, Tensor, Tensor]:
    """q, k, v of this shape, sharp enough that a wrong key is seen."""
    generator = torch.Generator().manual_seed(0)
    q, k, v = (
        torch.randn(shape.B, heads, tokens, width, generator=generator)
        for heads, tokens, width in (
            (shape.H, shape.Q, shape.D),
            (shape.G, shape.K, shape.D),
            (shape.G, shape.K, shape.Dv),
        )
    )
    return (2 * q).to(device, dtype), k.to(device, dtype), v.to(device, dtype)


def check_call(
    kernel: Any, call: tuple[Tensor, Tensor, Tensor], scoring: Scoring, band: Band | None
) -> None:
    """A kernel, or the door to all, answers a call in float32 as the reference does."""
    q, k, v = call
    o, lse = kernel.attend(q, k, v, scoring, band)
    want, want_lse = reference.attend(q, k, v, scoring, band)
    sighted = want_lse > -math.inf
    assert o.shape == want.shape
    torch.testing.assert_close(lse, want_lse, atol=2e-5, rtol=2e-5)
    torch.testing.assert_close(o[sighted], want[sighted], atol=2e-5, rtol=2e-5)
    whole = want_lse.masked_fill(~sighted, 1.0)
    mass = kernel.received(q, k, whole, scoring, band)
    wanted = reference.received(q, k, whole, scoring, band)
    torch.testing.assert_close(mass, wanted, atol=1e-4, rtol=1e-4)
