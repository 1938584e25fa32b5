"""Full attention: however it is fed, a token sees itself and all before it, at true distances."""

from __future__ import annotations

import pytest
import torch

from inf_llm.attention.base import Rule
from inf_llm.attention.origin import OriginAttention
from inf_llm.kernels import Scoring
from inf_llm.rope import Rope
from inf_llm.settings import OriginSettings
from tests.layers import random_qkv


@pytest.mark.parametrize("feeds", [[90], [1] * 90, [7, 50, 1, 32]], ids=["once", "each", "parts"])
def test_softmax_over_everything(feeds: list[int]) -> None:
    q, k, v = random_qkv(90)
    rope, scale = Rope.from_base(q.shape[-1], 1e4), q.shape[-1] ** -0.5
    layer = OriginAttention(rope, OriginSettings())
    parts = zip(*(x.split(feeds, 2) for x in (q, k, v)), strict=True)
    got = torch.cat([layer.attend(*part, Rule(Scoring(scale))) for part in parts], 2)
    keys, values = (
        x.repeat_interleave(q.shape[1] // k.shape[1], 1) for x in (rope.rotate(k, 0), v)
    )
    scores = rope.rotate(q, 0) @ keys.transpose(2, 3) * scale
    hidden = torch.ones(90, 90, dtype=torch.bool).triu(1)
    want = scores.masked_fill(hidden, -torch.inf).softmax(-1) @ values
    torch.testing.assert_close(got, want, atol=2e-6, rtol=2e-6)
