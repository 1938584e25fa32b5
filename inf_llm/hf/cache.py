"""A transformers cache whose layers hold the memory.

`generate` treats it like any other cache. `update` of its layers returns only the new keys and
values. The attention function passes them, with the queries, to the layer's attention object.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache

from inf_llm.errors import UnsupportedInputError
from inf_llm.hf.cache_layer import AttentionFactories, MemoryLayer
from inf_llm.memory.stats import MemoryStats
from inf_llm.not_picklable import NotPicklable, bare_copy


@dataclass(frozen=True)
class CacheStats:
    """The content of a cache, and its costs.

    Attributes:
        layers: one entry per layer that has a memory, in order.
        total: their sum; tokens are those of one layer.
    """

    layers: tuple[MemoryStats, ...]
    total: MemoryStats


class PatchCache(DynamicCache):
    """A cache that is valid only under the patch it was made under: no other call may feed it.

    Attributes:
        feeding: whether the forward pass of a patched decoder is feeding it.
    """

    feeding = False

    def update(self, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """See `Cache.update`; raises outside a patched decoder's pass, as do the others."""
        self._check_feed()
        return super().update(*args, **kwargs)

    def update_conv_state(self, *args: Any, **kwargs: Any) -> Tensor:
        """See `Cache.update_conv_state`."""
        self._check_feed()
        return super().update_conv_state(*args, **kwargs)

    def update_recurrent_state(self, *args: Any, **kwargs: Any) -> Tensor:
        """See `Cache.update_recurrent_state`."""
        self._check_feed()
        return super().update_recurrent_state(*args, **kwargs)

    def _check_feed(self) -> None:
        if not self.feeding:
            raise UnsupportedInputError(
                "this cache was made under inf_llm.patch, and is given to a model that is not "
                "patched, or no longer: give it to the model it was made for while that is "
                "patched, or read the text again into a cache of this model's own"
            )


class MemoryCache(NotPicklable, PatchCache):
    """A cache of a patched model. Made by `generate`, or by `inf_llm.new_cache(model)`.

    Attributes:
        assists: whether its model drafts tokens for another model; `generate` sets it.
        factories: the factories of its layers' attention objects, those of its patch.
        positions: positions of the tokens that are fed next (B, L), where rows differ.
    """

    assists = False
    factories: AttentionFactories
    positions: Tensor | None = None

    @property
    def memories(self) -> list[MemoryLayer]:
        """Layers that have a memory, in order."""
        return [layer for layer in self.layers if isinstance(layer, MemoryLayer)]

    def ends(self, prompt_end: int | None) -> Iterator[tuple[MemoryCache, int | None]]:
        """Yield each memory that a pass feeds, with the length of the prompt that it answers."""
        yield self, prompt_end

    def decode_from(self, position: int | None) -> None:
        """Make each token from this position on (padding counted) choose its blocks alone."""
        for layer in self.memories:
            layer.rows.decode_from(position)

    def activate_past_recording(self) -> None:
        """Record the states that `crop` goes back to, in every layer that can."""
        for layer in self.layers:
            if hasattr(layer, "activate_past_recording"):
                layer.activate_past_recording()

    def stats(self) -> CacheStats:
        """Return tokens, blocks, bytes and traffic, per layer and in sum."""
        layers = tuple(layer.rows.stats() for layer in self.memories)
        return CacheStats(layers, MemoryStats.total(layers))

    def fork(self) -> MemoryCache:
        """Return an independent copy: windows are copied, sealed blocks are shared."""
        twin = bare_copy(self)
        twin.layers = [
            layer.fork() if isinstance(layer, MemoryLayer) else _copied_layer(layer)
            for layer in self.layers
        ]
        return twin

    def __deepcopy__(self, memo: dict[int, Any]) -> MemoryCache:
        twin = self.fork()
        twin.factories = memo.get(
            id(self.factories), self.factories
        )  # where the model is copied too
        return twin


def _copied_layer(layer: Any) -> Any:
    """Copy a layer of transformers (linear attention, convolution) with its state."""
    twin = copy.copy(layer)
    for name, value in getattr(layer, "__dict__", {}).items():
        setattr(twin, name, _copied(value))
    return twin


def _copied(state: Any) -> Any:
    if torch.is_tensor(state):
        return state.detach().clone()
    if isinstance(state, list):
        return [_copied(part) for part in state]
    if isinstance(state, dict):
        return {key: _copied(part) for key, part in state.items()}
    return state


def adopt(cache: Cache, factories: AttentionFactories) -> MemoryCache:
    """Turn the empty cache that `generate` made into a memory, in place.

    Args:
        cache: an empty, plain DynamicCache, or a memory already.
        factories: the factory of the attention object, for every layer index with a memory.

    Raises:
        UnsupportedInputError: the cache is of another kind, is not empty, or is a memory of
            another patch.
    """
    if isinstance(cache, MemoryCache):
        if cache.factories is factories:
            return cache
        raise UnsupportedInputError(
            "this memory was made under another patch (of another model, or with other settings), "
            "so what it holds means nothing here: read the text again into "
            "inf_llm.new_cache(model)"
        )
    kind = type(cache).__name__
    if type(cache) is not DynamicCache or getattr(cache, "offloading", False):
        offloaded = " with offloading" if getattr(cache, "offloading", False) else ""
        raise UnsupportedInputError(
            f"a {kind}{offloaded} cannot hold the memory: pass no cache, an empty DynamicCache, "
            "or inf_llm.new_cache(model)"
        )
    if cache.get_seq_length():
        raise UnsupportedInputError(
            f"this {kind} already holds {cache.get_seq_length()} tokens of another attention "
            "type: start with an empty one"
        )
    install(cache.layers, factories)
    cache.layer_class_to_replicate = None
    cache.__class__ = MemoryCache
    memory = cast(MemoryCache, cache)
    memory.factories = factories
    return memory


def install(layers: list[Any], factories: AttentionFactories) -> None:
    """Put memory layers in place of attention layers; others (linear, convolution) stay."""
    while len(layers) <= max(factories):
        layers.append(None)
    for index, make in factories.items():
        layers[index] = MemoryLayer(make)


def check_layers(layers: Sequence[Any], factories: AttentionFactories) -> str | None:
    """Return why a model's cache layers cannot be replaced, or None if they can."""
    for index in factories:
        if index < len(layers) and hasattr(layers[index], "conv_states"):
            return f"layer {index} has attention and another recurrent state in one cache layer"
    return None
