"""What is searched with, and which search a configuration gets."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from inf_llm.choice import Choice
from inf_llm.errors import SettingsError
from inf_llm.memory.search import ProductSearch, Query, check_search, make_search
from inf_llm.memory.selection import LayerSelection
from inf_llm.memory.two_stage import TwoStage
from inf_llm.settings import InfLLMSettings, make_settings
from inf_llm.variants import SELECTION


def settings(**given: Any) -> InfLLMSettings:
    made = make_settings("inf-llm", **given)
    assert isinstance(made, InfLLMSettings)
    return made


@pytest.mark.parametrize("count", [1, 16, 5 * 16 + 3])
def test_queries_of_an_execution_block_are_means_of_neighbours(count: int) -> None:
    vectors = torch.randn(1, 3, count, 8)
    means = Query(vectors).means(16)
    assert means.shape[2] == min(count, 16)
    sizes = [len(part) for part in torch.arange(count).tensor_split(means.shape[2])]
    want = torch.stack([part.mean(2) for part in vectors.split(sizes, 2)], 2)
    torch.testing.assert_close(means, want)


@pytest.mark.parametrize(
    ("given", "pages", "kind"),
    [
        ({"repr_topk": 4}, 1, ProductSearch),
        ({"repr_topk": 4, "selection": "layer"}, 1, TwoStage),
        ({"selection": {"name": "layer", "scores": "sum"}, "summary": "mean"}, 1, ProductSearch),
        ({"selection": {"name": "layer", "scores": "sum"}}, 8, TwoStage),
        ({}, 8, TwoStage),
    ],
    ids=str,
)
def test_the_search_that_suits(given: dict[str, Any], pages: int, kind: type) -> None:
    chosen = settings(**given)
    selection = chosen.selection.build(SELECTION, 4, 2, 2)
    assert type(make_search(chosen.index, selection, pages)) is kind
    check_search(chosen)


@pytest.mark.parametrize("index", ["int8", "torch"])
def test_an_index_of_products_cannot_search_pages(index: str) -> None:
    with pytest.raises(SettingsError, match="use 'two-stage', or leave index out") as caught:
        check_search(settings(index=index))
    assert caught.value.key == "index"


class ByMass(LayerSelection):
    """The head that a block matters most to decides."""

    def mass(self, mass: torch.Tensor) -> torch.Tensor:
        return mass.amax(1, keepdim=True)


class ByProducts(LayerSelection):
    """The first query head decides."""

    def ask(self, query: torch.Tensor) -> torch.Tensor:
        return super().ask(query * torch.eye(query.shape[1])[0][:, None])


class Subclass(ByMass):
    """Nothing new."""


class Both(ByMass, ByProducts):
    """Each form from another class, the one by mass first."""

    def ask(self, query: torch.Tensor) -> torch.Tensor:
        return super().ask(query)

    def mass(self, mass: torch.Tensor) -> torch.Tensor:
        return super().mass(mass)


@pytest.mark.parametrize(
    ("kind", "kinds"),
    [
        (LayerSelection, {1: ProductSearch, 3: TwoStage}),
        (ByMass, {1: TwoStage, 3: TwoStage}),
        (Subclass, {1: TwoStage, 3: TwoStage}),
        (ByProducts, {1: ProductSearch}),
        (Both, {1: ProductSearch, 3: TwoStage}),
    ],
)
def test_a_selection_is_searched_by_the_form_that_it_overrides(
    kind: type[LayerSelection], kinds: dict[int, type]
) -> None:
    for pages, search in kinds.items():
        assert type(make_search(None, kind(4, 2, 2), pages)) is search


@pytest.mark.parametrize(("pages", "scores"), [(3, "sum"), (1, "softmax")])
def test_a_selection_that_would_be_left_out_is_refused(pages: int, scores: str) -> None:
    with pytest.raises(SettingsError, match="ByProducts overrides `vectors` or `ask` alone"):
        make_search(None, ByProducts(4, 2, 2, scores), pages)
    with pytest.raises(SettingsError, match="ByMass states its rule in `mass` alone: use 'two-st"):
        make_search(Choice("torch"), ByMass(4, 2, 2), 1)
