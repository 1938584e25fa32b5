"""The reference kernel against a softmax written out, one query at a time, in float64."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from inf_llm.kernels import Band, Scoring, reference
from tests.kernels.shapes import BANDS, SHAPES, Shape, random_call


def without_inference_mode(
    q: Tensor, k: Tensor, v: Tensor, scoring: Scoring, band: Band | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Output, log-sum-exp, and mass per key; blind queries give 0 and -inf."""
    q, k, v = q.double(), k.double(), v.double()
    B, H, Q, _ = q.shape
    G, K = k.shape[1:3]
    o = q.new_zeros(B, H, Q, v.shape[-1])
    lse, mass = q.new_full((B, H, Q), -math.inf), q.new_zeros(B, H, K)
    for b in range(B):
        for h in range(H):
            g = h // (H // G)
            for i in range(Q):
                seen = [
                    j
                    for j in range(K)
                    if band is None or band.near <= i + band.offset - j < (band.far or math.inf)
                ]
                if not seen:
                    continue
                scores = k[b, g, seen] @ q[b, h, i] * scoring.scale
                if scoring.softcap is not None:
                    scores = (scores / scoring.softcap).tanh() * scoring.softcap
                weights = scores.exp()
                o[b, h, i] = weights @ v[b, g, seen] / weights.sum()
                lse[b, h, i] = weights.sum().log()
                mass[b, h, seen] += weights / weights.sum()
    return o, lse, mass


@pytest.mark.parametrize("band", BANDS.values(), ids=BANDS)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("softcap", [None, 1.5], ids=["plain", "capped"])
def test_equals_a_plain_softmax(shape: Shape, band: Band | None, softcap: float | None) -> None:
    q, k, v = random_call(shape)
    scoring = Scoring(0.3, softcap)
    o, lse = reference.attend(q, k, v, scoring, band)
    want, want_lse, want_mass = without_inference_mode(q, k, v, scoring, band)
    assert o.dtype == q.dtype
    assert lse.dtype == torch.float32
    sighted = want_lse > -math.inf
    torch.testing.assert_close(lse.double(), want_lse, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(o.double()[sighted], want[sighted], atol=1e-5, rtol=1e-5)
    whole = lse.masked_fill(~sighted, 0.0)
    mass = reference.received(q, k, whole, scoring, band)
    torch.testing.assert_close(mass.double(), want_mass, atol=1e-5, rtol=1e-5)


def test_mass_is_a_share_of_the_whole_softmax() -> None:
    """These keys may be a part: with an lse twice as heavy, they get half."""
    q, k, v = random_call(SHAPES["grouped"])
    scoring = Scoring(0.3)
    _, lse = reference.attend(q, k, v, scoring)
    alone = reference.received(q, k, lse, scoring)
    torch.testing.assert_close(alone.sum(-1), torch.full_like(alone.sum(-1), q.shape[2]))
    shared = reference.received(q, k, lse + math.log(2), scoring)
    torch.testing.assert_close(shared, alone / 2)
