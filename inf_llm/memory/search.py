"""Search for the blocks that match a query best, from their summary vectors.

Where the scores of heads are added without a softmax, and a block has one summary vector per head,
one inner product per block gives the sum: `ProductSearch`, with an `Index`. All other rules score
head by head; see `two_stage`.
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
    """The queries of one execution block, for a search.

    Attributes:
        vectors: queries (B, H, Q, D), rotated for products with unrotated keys.
        scale: factor on the products of queries and keys in the model's softmax.
    """

    vectors: Tensor
    scale: float = 1.0

    def means(self, most: int) -> Tensor:
        """Average neighbouring queries to at most `most` vectors (B, H, n, D)."""
        count = self.vectors.shape[2]
        if count <= most:
            return self.vectors
        parts = self.vectors.tensor_split(most, 2)
        # float32, because the mean of many queries is small compared with each query
        means = [part.mean(2, dtype=torch.float32) for part in parts]
        return torch.stack(means, 2).to(self.vectors.dtype)


class Search(ABC):
    """The summaries of blocks, and a search over them.

    Args:
        selection: the selection rule.

    Attributes:
        on_host: whether the summaries are in host memory, even if attention runs on a GPU.
    """

    on_host = False

    def __init__(self, selection: Selection) -> None:
        self.selection = selection

    @abstractmethod
    def put(self, blocks: Tensor, summaries: Tensor) -> None:
        """Set the summaries (n, Y, P, D) of physical blocks (n,)."""

    @abstractmethod
    def search(self, query: Query, topk: int, total: int, table: Tensor | None) -> Found:
        """Return the `topk` best of each row's blocks; shapes and `table` as in `Index.search`."""

    @classmethod
    def search_each(
        cls,
        searches: Sequence[Search],
        query: Query,
        topk: int,
        totals: Sequence[int],
        tables: Sequence[Tensor | None],
    ) -> list[Found]:
        """Call `search` of n searches of this class, one per row of the query (n, H, Q, D)."""
        rows = (Query(row, query.scale) for row in query.vectors.split(1))
        calls = zip(searches, rows, totals, tables, strict=True)
        return [search.search(row, topk, total, table) for search, row, total, table in calls]

    def dump(self, blocks: Tensor) -> dict[str, Tensor]:
        """Return the summaries of physical blocks (n,), as tensors (V, n, ...) by name.

        Raises:
            UnsupportedInputError: this search cannot be saved.
        """
        raise UnsupportedInputError(f"a {type(self).__name__} cannot be saved with a memory")

    def restore(self, parts: Mapping[str, Sequence[Tensor]], device: torch.device) -> None:
        """Set the summaries of blocks 0, 1, ... from parts of `dump`; the search must be empty."""
        raise NotImplementedError

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """Bytes of the summaries."""


class ProductSearch(Search):
    """Products of an execution block's mean query with one vector per block (Xiao et al., 2024).

    Args:
        selection: the selection rule.
        index: index that finds the largest products.
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
        queries = self.selection.ask(query.means(1)[:, :, 0])
        return self.index.search(queries, topk, total, table)

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
    """Build the search for a selection rule and `pages` vectors per block and head.

    Args:
        index: the entry of `INDEX` with its options; None for the default of the selection.
        selection: the selection rule.
        pages: summary vectors per block and head, P.

    Raises:
        SettingsError: the index does not support the rule, or the rule returns wrong shapes.
        MissingExtraError: the package of the index is not installed.
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
    """Check that the search of these settings can be built.

    Raises:
        SettingsError: the index does not support the rule, or the rule returns wrong shapes.
        MissingExtraError: the package of the index is not installed.
    """
    summary = settings.summary.build(SUMMARY, settings.block_size)
    heads, groups = 4, 2
    summaries = groups if summary.shared else heads
    selection = settings.selection.build(SELECTION, heads, groups, summaries)
    make_search(settings.index, selection, summary.pages)
