"""InfLLM attention for a model whose heads are spread over processes (transformers' `tp_plan`).

Every process holds some query heads with their keys and values, windows and blocks, and computes
the attention of these heads alone. Only the choice of blocks needs the other processes, because it
depends on the sum of the scores over *all* heads of a row. So each process scores its own heads,
and the scores, one float a block, are summed over the processes before the top-k. All processes
then choose the same blocks. Where each key head or query head chooses for itself, nothing is
exchanged.
"""

from __future__ import annotations

import functools
from typing import Any

import torch.distributed as dist
from torch import Tensor

from inf_llm.attention.inf_llm import InfLLMAttention
from inf_llm.errors import UnsupportedModelError
from inf_llm.hf.cache_layer import AttentionFactory
from inf_llm.memory.block_memory import BlockMemory
from inf_llm.memory.block_store import BlockStore
from inf_llm.memory.index import TorchIndex
from inf_llm.memory.search import ProductSearch
from inf_llm.memory.selection import Selection
from inf_llm.memory.two_stage import TwoStage
from inf_llm.rope import Rope
from inf_llm.settings import InfLLMSettings

Group = dist.ProcessGroup | None
"""The processes that share a model's heads; None for all processes."""


def is_tensor_parallel(model: Any) -> bool:
    """Return whether a model's heads are spread over several processes."""
    return (getattr(model, "tp_size", None) or 1) > 1


class AllReduceIndex(TorchIndex):
    """An index whose scores are summed over the processes of a group."""

    def __init__(self, chunk: int | None, group: Group) -> None:
        super().__init__(chunk)
        self._group = group

    def _scores(self, query: Tensor, vectors: Tensor) -> Tensor:
        scores = super()._scores(query, vectors).contiguous()
        dist.all_reduce(scores, group=self._group)
        return scores


class AllReduceTwoStage(TwoStage):
    """A two-stage search whose shares of attention are summed over the processes of a group."""

    def __init__(self, selection: Selection, shortlist: int, group: Group) -> None:
        super().__init__(selection, shortlist)
        self._group = group

    def _added(self, shares: Tensor) -> Tensor:
        added = super()._added(shares).contiguous()
        dist.all_reduce(added, group=self._group)
        return added


class _SharedMemory(BlockMemory):
    """A memory that chooses blocks together with other processes."""

    def __init__(self, settings: InfLLMSettings, arriving: int, group: Group) -> None:
        super().__init__(settings, keep=settings.n_local, arriving=arriving)
        self._group = group

    def _open_store(self, *shape: Any) -> BlockStore:
        store = super()._open_store(*shape)
        if isinstance(store.index, TwoStage):
            store.index = AllReduceTwoStage(store.selection, store.index.shortlist, self._group)
        else:
            chosen = self.settings.index
            chunk = None if chosen is None else chosen.options.get("chunk")
            summed = AllReduceIndex(chunk, self._group)
            store.index = ProductSearch(store.selection, summed)
        return store


class TensorParallelInfLLMAttention(InfLLMAttention):
    """The window and the memory of one layer, for the heads of this process.

    Args:
        rope: the rotation of the layer.
        settings: sizes and policies.
        group: the processes that hold the other heads.
    """

    def __init__(self, rope: Rope, settings: InfLLMSettings, group: Group = None) -> None:
        super().__init__(rope, settings)
        if settings.selection.name == "layer":
            self.memory = _SharedMemory(settings, self.block, group)


def tensor_parallel_factory(model: Any, rope: Rope, settings: InfLLMSettings) -> AttentionFactory:
    """Return the factory of a layer's attention object for a model whose heads are spread.

    Raises:
        UnsupportedModelError: the settings name an index that cannot sum scores, or a selection
            for which it is unknown if it needs the sum.
    """
    if settings.selection.name not in ("layer", "key-head", "query-head"):
        raise UnsupportedModelError(
            f"selection = {settings.selection.name!r} cannot choose for a model whose heads are "
            "spread over processes: set selection to 'layer', 'key-head' or 'query-head'"
        )
    if settings.index is not None and settings.index.name not in ("torch", "int8", "two-stage"):
        raise UnsupportedModelError(
            f"index = {settings.index.name!r} cannot retrieve for a model whose heads are spread "
            "over processes: leave index out, or set faiss to false"
        )
    mesh = getattr(model, "_device_mesh", None)
    group = None if mesh is None else (mesh["tp"] if mesh.ndim > 1 else mesh).get_group()
    return functools.partial(TensorParallelInfLLMAttention, rope, settings, group)
