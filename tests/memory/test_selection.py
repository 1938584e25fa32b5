"""Who chooses: every row scores by sums of products, whatever form it brings them to."""

from __future__ import annotations

import pytest
import torch

from inf_llm.errors import SettingsError
from inf_llm.memory.selection import KeyHeadSelection, LayerSelection, Selection
from inf_llm.variants import SELECTION


@pytest.mark.parametrize("row", SELECTION.own)
@pytest.mark.parametrize("summaries", [2, 4], ids=["shared", "apart"])
def test_selections_score_by_sums_of_products(row: str, summaries: int) -> None:
    """What a chooser scores is the sum, over its query heads, of query times summary."""
    selection = SELECTION.get(row)(4, 2, summaries)
    query, vectors = torch.randn(3, 4, 8), torch.randn(5, summaries, 8)
    products = torch.einsum("bhd,nhd->bhn", query, vectors.repeat_interleave(4 // summaries, 1))
    queries, held = selection.ask(query), selection.vectors(vectors)
    assert queries.shape[1] == selection.choosers
    held = held.repeat_interleave(selection.choosers // held.shape[0], 0)
    want = selection.mass(products)
    assert want.shape == (3, selection.choosers, 5)
    torch.testing.assert_close(torch.einsum("bxw,xnw->bxn", queries, held), want)
    key_heads = selection.key_heads
    assert (
        key_heads is None
        or key_heads.tolist() == [h // (4 // 2) for h in range(4)][:: 4 // len(key_heads)]
    )


class _EveryHead(LayerSelection):
    def mass(self, mass: torch.Tensor) -> torch.Tensor:
        return mass


class _Flat(LayerSelection):
    def ask(self, query: torch.Tensor) -> torch.Tensor:
        return query.flatten(1)


class _Bare(LayerSelection):
    def vectors(self, summaries: torch.Tensor) -> torch.Tensor:
        return summaries.flatten(1)


class _TooMany(KeyHeadSelection):
    @property
    def key_heads(self) -> torch.Tensor:
        return torch.arange(self.heads)


@pytest.mark.parametrize(
    ("made", "what"),
    [
        (_EveryHead, r"mass gives \(2, 4, 3\) where \(2, 1, 3\)"),
        (_Flat, "ask gives"),
        (_Bare, "vectors gives"),
        (_TooMany, r"key_heads gives \(4,\) where \(2,\)"),
    ],
)
def test_choices_of_another_shape_are_refused(made: type[Selection], what: str) -> None:
    with pytest.raises(SettingsError, match=what):
        made(4, 2, 2).check()


@pytest.mark.parametrize("row", SELECTION.own)
@pytest.mark.parametrize("summaries", [2, 4])
def test_control_all_rows_give_the_shapes_they_say(row: str, summaries: int) -> None:
    SELECTION.get(row)(4, 2, summaries).check()
