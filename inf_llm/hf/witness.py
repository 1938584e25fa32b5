"""A check whether a forward pass that failed had begun to change a cache."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Any

import torch
from transformers.cache_utils import Cache, CacheLayerMixin

from inf_llm.hf.cache_layer import MemoryLayer


class Witness:
    """A snapshot of a cache, to detect whether a forward pass has begun to change it.

    Args:
        cache: the cache before the pass. The snapshot holds only weak references to its tensors.
    """

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._before = list(_marks(cache.layers))

    def unchanged(self) -> bool:
        """Return whether every layer is as it was."""
        now = list(_marks(self._cache.layers))
        return len(now) == len(self._before) and all(
            old is new or (type(old) is type(new) is int and old == new)
            for old, new in zip(self._before, now, strict=True)
        )


def _marks(state: Any) -> Iterator[object]:
    """Yield values that differ after a change: numbers, tensors, and their versions."""
    if isinstance(state, MemoryLayer):
        yield state.rows.seen
    elif torch.is_tensor(state):
        yield weakref.ref(state)
        # tensors of `torch.inference_mode` have no version: they count as changed
        yield object() if state.is_inference() else state._version
    elif isinstance(state, list | tuple | dict):
        for part in state.values() if isinstance(state, dict) else state:
            yield from _marks(part)
    elif isinstance(state, CacheLayerMixin):
        yield from _marks(vars(state))
    elif isinstance(state, int):
        yield int(state)
