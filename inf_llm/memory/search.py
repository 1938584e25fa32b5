"""How the blocks that match best are found: the part of a store between summaries and choices.

Where scores of heads are added up as they are, one vector per block and one product do it:
`ProductSearch`, through an `Index`. Anything else is scored head by head, see `two_stage`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from inf_llm.choice import Choice
from inf_llm.errors import SettingsError, UnsupportedInputError
from inf_llm.memory.index import Found, Index
from inf_llm.memory.selection import Selection
from inf_llm.settings import InfLLMSettings
from inf_llm.variants import INDEX, SELECTION, SUMMARY


@dataclass(frozen=True)
class Query:
    """What an execution block is looking for.

    Attributes:
        vectors: its queries (B, H, Q, D), as they meet the keys of blocks.
        scale: factor on a product of query and key in the model's softmax.
    """

    vectors: Tensor
    scale: float = 1.0

    def means(self, most: int) -> Tensor:
        """At most so many queries (B, H, n, D), each the mean of neighbours, float32 inside."""
        count = self.vectors.shape[2]
        if count <= most:
            return self.vectors
        parts = self.vectors.tensor_split(most, 2)
        # float32 means: the average of many queries is small next to each of them
        means = [part.mean(2, dtype=torch.float32) for part in parts]
        return torch.stack(means, 2).to(self.vectors.dtype)


class Search(ABC):
    """Summaries of blocks, and the search among them.

    Args:
        selection: who chooses.

    Attributes:
        on_host: whether the summaries lie in host memory, wherever attention is computed.
    """

    on_host = False

    def __init__(self, selection: Selection) -> None:
        self.selection = selection

    @abstractmethod
    def put(self, blocks: Tensor, summaries: Tensor) -> None:
        """Set the summaries (n, Y, P, D) of physical blocks (n,)."""

    @abstractmethod
    def search(self, query: Query, topk: int, total: int, table: Tensor | None) -> Found:
        """The best `topk` of each row's blocks; shapes and `table` as for `Index.search`."""

    @classmethod
    def search_each(
        cls,
        searches: Sequence[Search],
        query: Query,
        topk: int,
        totals: Sequence[int],
        tables: Sequence[Tensor | None],
    ) -> list[Found]:
        """As `search` of n searches of this class, each for one row of the query (n, H, Q, D)."""
        rows = (Query(row, query.scale) for row in query.vectors.split(1))
        each = zip(searches, rows, totals, tables, strict=True)
        return [search.search(row, topk, total, table) for search, row, total, table in each]

    def dump(self, blocks: Tensor) -> dict[str, Tensor]:
        """What is held of physical blocks (n,), as tensors (V, n, ...).

        Raises:
            UnsupportedInputError: this search cannot be saved.
        """
        raise UnsupportedInputError(f"a {type(self).__name__} cannot be saved with a memory")

    def restore(self, parts: Mapping[str, Sequence[Tensor]], device: torch.device) -> None:
        """Set what `dump` gave of blocks 0, 1, ..., part after part; nothing is held yet."""
        raise NotImplementedError

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """Bytes of what is held."""


class ProductSearch(Search):
    """The mean query of an execution block against one vector per block (Xiao et al., 2024).

    Args:
        selection: who chooses.
        index: finds the largest products.
    """

    def __init__(self, selection: Selection, index: Index) -> None:
        super().__init__(selection)
        self.index = index
        self.on_host = index.on_host

    def put(self, blocks: Tensor, summaries: Tensor) -> None:
        """See `Search.put`."""
        self.index.put(blocks, self.selection.vectors(summaries[:, :, 0]))

    def search(self, query: Query, topk: int, total: int, table: Tensor | None) -> Found:
        """See `Search.search`."""
        asked = self.selection.ask(query.means(1)[:, :, 0])
        return self.index.search(asked, topk, total, table)

    def dump(self, blocks: Tensor) -> dict[str, Tensor]:
        """See `Search.dump`."""
        return {"vectors": self.index.vectors(blocks)}

    def restore(self, parts: Mapping[str, Sequence[Tensor]], device: torch.device) -> None:
        """See `Search.restore`."""
        self.index.restore(parts["vectors"], device)

    @property
    def nbytes(self) -> int:
        """See `Search.nbytes`."""
        return self.index.nbytes


def make_search(index: Choice | None, selection: Selection, pages: int) -> Search:
    """The search for a selection over so many vectors per block and head.

    Args:
        index: which row of `INDEX`; None for the one that suits.
        selection: who chooses.
        pages: vectors of a block and head, P.

    Raises:
        SettingsError: the index cannot do this, or the selection gives other shapes than it says.
        MissingExtraError: its package is not installed.
    """
    selection.check()
    adds_up = selection.scores == "sum" and pages == 1
    products = adds_up and selection.by_products
    chosen = index or Choice("torch" if products else "two-stage")
    made = INDEX.get(chosen.name)
    if isinstance(made, type) and issubclass(made, Search):
        built: Search = chosen.build(INDEX, selection)
        return built
    if not products:
        here = f"scores are {selection.scores!r} over {pages} vectors per block"
        if adds_up:
            here = f"{type(selection).__name__} states its rule in `mass` alone"
        raise SettingsError(
            f"index = {chosen.name!r} finds sums of products with one vector per block, but here "
            f"{here}: use 'two-stage', or leave index out",
            "index",
        )
    return ProductSearch(selection, chosen.build(INDEX))


def check_search(settings: InfLLMSettings) -> None:
    """See that the search which the settings ask for can be made.

    Raises:
        SettingsError: the index cannot do it, or the selection gives other shapes than it says.
        MissingExtraError: its package is not installed.
    """
    summary = settings.summary.build(SUMMARY, settings.block_size)
    heads, groups = 4, 2
    summaries = groups if summary.shared else heads
    selection = settings.selection.build(SELECTION, heads, groups, summaries)
    make_search(settings.index, selection, summary.pages)
