"""Summaries against loops over heads and blocks."""

from __future__ import annotations

import pytest
import torch

from inf_llm.memory.summary import MostAttended


@pytest.mark.parametrize("tokens", [1, 3, 8])
@pytest.mark.parametrize("heads", [(4, 2), (4, 4), (3, 1)], ids=str)
def test_mean_of_the_most_attended(tokens: int, heads: tuple[int, int]) -> None:
    H, G = heads
    k, mass = torch.randn(2, G, 5, 8, 16), torch.rand(2, H, 5, 8)
    got = MostAttended(8, tokens).vectors(k, mass)
    assert got.shape == (2, G if tokens == 8 else H, 5, 16)
    got = got.repeat_interleave(H // got.shape[1], 1)
    for b in range(2):
        for h in range(H):
            for n in range(5):
                best = sorted(range(8), key=lambda t: -float(mass[b, h, n, t]))[:tokens]
                want = k[b, h // (H // G), n, best].mean(0)
                torch.testing.assert_close(got[b, h, n], want)


@pytest.mark.parametrize("tokens", [3, 8])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_is_rounded_once(dtype: torch.dtype, tokens: int) -> None:
    k, mass = torch.randn(1, 2, 5, 8, 16).to(dtype), torch.rand(1, 4, 5, 8)
    got = MostAttended(8, tokens).vectors(k, mass)
    assert torch.equal(got, MostAttended(8, tokens).vectors(k.float(), mass).to(dtype))


def test_views_of_a_longer_buffer() -> None:
    k, mass = torch.randn(2, 2, 100, 16), torch.rand(2, 4, 100)
    keys, weights = (x[:, :, 3:43].unflatten(2, (5, 8)) for x in (k, mass))
    got = MostAttended(8, 3).vectors(keys, weights)
    want = MostAttended(8, 3).vectors(keys.contiguous(), weights.contiguous())
    assert torch.equal(got, want)
