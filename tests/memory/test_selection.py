"""Who chooses: every row scores by sums of products, whatever form it brings them to."""

from __future__ import annotations

import pytest
import torch

from inf_llm.variants import SELECTION


@pytest.mark.parametrize("row", SELECTION.own)
@pytest.mark.parametrize("summaries", [2, 4], ids=["shared", "apart"])
def test_selections_score_by_sums_of_products(row: str, summaries: int) -> None:
    """What a chooser scores is the sum, over its query heads, of query times summary."""
    selection = SELECTION.get(row)(4, 2, summaries)
    query, vectors = torch.randn(3, 4, 8), torch.randn(5, summaries, 8)
    products = torch.einsum("bhd,nhd->bhn", query, vectors.repeat_interleave(4 // summaries, 1))
    asked, held = selection.ask(query), selection.vectors(vectors)
    assert asked.shape[1] == selection.choosers
    held = held.repeat_interleave(selection.choosers // held.shape[0], 0)
    want = selection.mass(products)
    assert want.shape == (3, selection.choosers, 5)
    torch.testing.assert_close(torch.einsum("bxw,xnw->bxn", asked, held), want)
    own = selection.key_heads
    assert own is None or own.tolist() == [h // (4 // 2) for h in range(4)][:: 4 // len(own)]
