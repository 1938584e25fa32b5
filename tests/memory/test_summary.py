"""Summaries against loops over heads and blocks."""

from __future__ import annotations

import pytest
import torch

from inf_llm import registry
from inf_llm.choice import Choice
from inf_llm.errors import SettingsError
from inf_llm.memory.block_memory import BlockMemory
from inf_llm.memory.summary import Mean, MostAttended, Pages
from inf_llm.settings import InfLLMSettings
from inf_llm.variants import SUMMARY


@pytest.mark.parametrize("tokens", [1, 3, 8])
@pytest.mark.parametrize("heads", [(4, 2), (4, 4), (3, 1)], ids=str)
def test_mean_of_the_most_attended(tokens: int, heads: tuple[int, int]) -> None:
    H, G = heads
    k, mass = torch.randn(2, G, 5, 8, 16), torch.rand(2, H, 5, 8)
    got = MostAttended(8, tokens).vectors(k, mass)
    assert got.shape == (2, G if tokens == 8 else H, 5, 1, 16)
    got = got[:, :, :, 0].repeat_interleave(H // got.shape[1], 1)
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


@pytest.mark.parametrize("size", [1, 4, 8])
def test_pages_are_means_of_neighbours(size: int) -> None:
    k = torch.randn(2, 3, 5, 8, 16)
    got = Pages(8, size).vectors(k, torch.zeros(2, 6, 5, 8))
    assert got.shape == (2, 3, 5, 8 // size, 16)
    for page in range(8 // size):
        want = k[:, :, :, page * size : (page + 1) * size].double().mean(3)
        torch.testing.assert_close(got[:, :, :, page].double(), want, atol=1e-6, rtol=1e-6)


def test_views_of_a_longer_buffer() -> None:
    k, mass = torch.randn(2, 2, 100, 16), torch.rand(2, 4, 100)
    keys, weights = (x[:, :, 3:43].unflatten(2, (5, 8)) for x in (k, mass))
    got = MostAttended(8, 3).vectors(keys, weights)
    want = MostAttended(8, 3).vectors(keys.contiguous(), weights.contiguous())
    assert torch.equal(got, want)


class Twice(Mean):
    """Two vectors, of which `pages` announces one."""

    def vectors(self, k: torch.Tensor, mass: torch.Tensor) -> torch.Tensor:
        return super().vectors(k, mass).expand(-1, -1, -1, 2, -1)


def test_vectors_that_are_not_announced_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SUMMARY, "_added", {"twice": registry._Row(Twice)})
    settings = InfLLMSettings(
        n_init=2, n_local=8, block_size=8, exc_block_size=8, summary=Choice("twice")
    )
    memory, (k, v) = BlockMemory(settings, 8, 8), torch.randn(2, 1, 2, 18, 4)
    memory.append(k, v, 4)
    with pytest.raises(SettingsError, match=r"\(1, 2, 1, 2, 4\), but \(1, 2, 1, 1, 4\) is needed"):
        memory.settle()
    memory.summary.pages = 2
    memory.settle()
    assert memory.blocks == 1


@pytest.mark.parametrize("row", SUMMARY.own)
def test_summaries_do_not_mix_blocks_rows_or_heads(row: str) -> None:
    """A vector for each block and head, from that block's keys alone, in the dtype of the keys."""
    summary = Choice(row).build(SUMMARY, 8)
    k, mass = torch.randn(2, 2, 5, 8, 16), torch.rand(2, 4, 5, 8)
    whole = summary.vectors(k, mass)
    assert whole.shape == (2, 2 if summary.shared else 4, 5, summary.pages, 16)
    assert summary.vectors(k.bfloat16(), mass).dtype == torch.bfloat16
    other = k.clone()
    other[1, 1, 3] = torch.randn(8, 16)
    changed = (summary.vectors(other, mass) != whole).flatten(3).any(-1).nonzero()
    assert {tuple(at) for at in changed[:, (0, 2)].tolist()} == {(1, 3)}
    assert changed[:, 1].min() == whole.shape[1] // 2
