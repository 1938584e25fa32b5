"""Means and pages of blocks, against the vectors they were made of."""

from __future__ import annotations

import pytest
import torch

from inf_llm.memory.page_summaries import PageSummaries

Y, N, P, D = 2, 9, 4, 8


def held(pages: torch.Tensor) -> PageSummaries:
    made = PageSummaries()
    for some in torch.arange(N).split(4):
        made.put(some, pages[:, some])
    return made


@pytest.mark.parametrize("choosers", [1, Y, 3 * Y])
def test_pages_of_listed_blocks(choosers: int) -> None:
    pages = torch.randn(Y, N, P, D)
    shortlisted = torch.randint(N, (3, choosers, 5))
    codes, steps = held(pages).pages(shortlisted, None)
    units = max(choosers, Y)
    got = codes.view(3, units, 5, P, D) * steps[..., None, None]
    for row in range(3):
        for unit in range(units):
            blocks = shortlisted[row, unit * choosers // units]
            want = pages[unit * Y // units, blocks]
            largest = want.abs().amax((1, 2), keepdim=True)
            assert ((got[row, unit] - want).abs() <= largest / 127 / 2 + 1e-6).all()


def test_rows_with_blocks_of_their_own() -> None:
    pages = torch.randn(Y, N, P, D)
    table = torch.stack((torch.randperm(N)[:6], torch.randperm(N)[:6]))
    q, shortlisted = torch.randn(2, 3 * Y, 1, D), torch.randint(6, (2, 1, 4))
    made = held(pages)
    means = pages.mean(2)
    for row in range(2):
        want = torch.einsum("yhqd,ynd->yhqn", q[row].view(Y, 3, 1, D), means[:, table[row]])
        torch.testing.assert_close(made.mean_scores(q, 6, table)[row], want.flatten(0, 1))
    codes, steps = made.pages(shortlisted, table)
    physical = table[:, None].gather(2, shortlisted)
    same = made.pages(physical, None)
    assert torch.equal(codes, same[0])
    assert torch.equal(steps, same[1])


def test_one_page_needs_no_codes() -> None:
    pages = torch.randn(Y, N, 1, D)
    assert not held(pages).has_pages
    assert held(torch.randn(Y, N, 2, D)).has_pages
    assert set(held(pages).of(torch.arange(N))) == {"means"}


def test_what_was_given_is_restored() -> None:
    first, blocks = held(torch.randn(Y, N, P, D)), torch.arange(N)
    parts = first.of(blocks)
    second = PageSummaries()
    second.restore(
        {name: [part[:, :4], part[:, 4:]] for name, part in parts.items()}, blocks.device
    )
    for name, part in second.of(blocks).items():
        assert torch.equal(part, parts[name])
    assert second.nbytes == first.nbytes == Y * N * (D * 4 + P * D + 4)
