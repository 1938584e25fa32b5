"""Parts of one softmax put together; only the log-sum-exp says what a part is worth."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from inf_llm.kernels import Band, Scoring, attend, merge, reference, with_learned_sink
from tests.kernels.shapes import SHAPES, Shape, random_call

SCORING = Scoring(0.3)


@pytest.mark.parametrize("ends", [[33], [1, 33], [10, 20, 33], [1, 2, 3, 33]], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_parts_make_the_whole(ends: list[int], dtype: torch.dtype, device: torch.device) -> None:
    q, k, v = random_call(SHAPES["grouped"], dtype, device)
    want, want_lse = reference.attend(q.float(), k.float(), v.float(), SCORING)
    parts = [
        attend(q, k[:, :, first:last], v[:, :, first:last], SCORING)
        for first, last in zip([0, *ends[:-1]], ends, strict=True)
    ]
    o, lse = merge(parts)
    near = 1e-5 if dtype == torch.float32 else 2e-2
    assert o.dtype == dtype
    torch.testing.assert_close(o.float(), want, atol=near, rtol=near)
    torch.testing.assert_close(lse, want_lse, atol=near, rtol=near)


@pytest.mark.parametrize("garbage", [math.nan, math.inf, -math.inf, 1e30, 0.0])
@pytest.mark.parametrize("order", [1, -1], ids=["first", "last"])
def test_a_part_that_saw_nothing_adds_nothing(garbage: float, order: int) -> None:
    q, k, v = random_call(SHAPES["grouped"])
    good = attend(q, k, v, SCORING)
    nothing = torch.full_like(good[0], garbage), torch.full_like(good[1], -math.inf)
    o, lse = merge([good, nothing, nothing][::order])
    torch.testing.assert_close(o, good[0])
    torch.testing.assert_close(lse, good[1])


def test_blind_queries_beside_sighted_ones() -> None:
    """Each query has its own keys to weigh: here some see one part, some both."""
    q, k, v = random_call(SHAPES["grouped"])
    near, far = Band(13, 0, 10), Band(13, 10)
    parts = [_poisoned(*attend(q, k, v, SCORING, band)) for band in (near, far)]
    want, want_lse = reference.attend(q, k, v, SCORING, Band(13))
    o, lse = merge(parts)
    torch.testing.assert_close(o, want, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(lse, want_lse, atol=1e-5, rtol=1e-5)


def _poisoned(o: Tensor, lse: Tensor) -> tuple[Tensor, Tensor]:
    return o.masked_fill((lse == -math.inf)[..., None], math.nan), lse


def test_where_no_part_saw_anything() -> None:
    nothing = torch.full((1, 2, 3, 4), math.nan), torch.full((1, 2, 3), -math.inf)
    o, lse = merge([nothing, nothing])
    assert (o == 0).all()
    assert (lse == -math.inf).all()


def test_large_scores_do_not_overflow() -> None:
    one = torch.ones(1, 1, 1, 2), torch.full((1, 1, 1), 3000.0)
    two = torch.zeros(1, 1, 1, 2), torch.full((1, 1, 1), 3000.0)
    o, lse = merge([one, two])
    torch.testing.assert_close(o, torch.full_like(o, 0.5), atol=1e-4, rtol=0)
    torch.testing.assert_close(lse, torch.full_like(lse, 3000.0 + math.log(2)))


def test_inputs_are_left_alone() -> None:
    parts = [attend(*random_call(Shape(K=K)), SCORING) for K in (3, 9)]
    before = [(o.clone(), lse.clone()) for o, lse in parts]
    merge(parts)
    for part, same in zip(parts, before, strict=True):
        assert torch.equal(part[0], same[0])
        assert torch.equal(part[1], same[1])


def test_a_learned_sink_is_a_key_without_a_value() -> None:
    q, k, v = random_call(SHAPES["grouped"])
    sink = torch.tensor([3.0, -2.0, 0.0, 50.0])
    o, lse = with_learned_sink(*reference.attend(q, k, v, SCORING), sink)
    scores = q.view(1, 2, 2, 20, 16) @ k[:, :, None].transpose(-1, -2) * 0.3
    scores = torch.cat((scores.view(1, 4, 20, 33), sink.view(1, 4, 1, 1).expand(1, 4, 20, 1)), -1)
    weights = scores.softmax(-1)[..., :-1].view(1, 2, 2, 20, 33)
    torch.testing.assert_close(o, (weights @ v[:, :, None]).view(1, 4, 20, 16))
    torch.testing.assert_close(lse, scores.logsumexp(-1))


def test_a_learned_sink_and_a_query_that_saw_nothing() -> None:
    garbage = torch.full((1, 2, 1, 4), math.nan), torch.full((1, 2, 1), -math.inf)
    o, lse = with_learned_sink(*garbage, torch.tensor([1.0, 2.0]))
    assert (o == 0).all()
    assert lse.flatten().tolist() == [1.0, 2.0]
