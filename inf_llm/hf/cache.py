"""The memory in the shape transformers knows: a cache whose layers hold what was read.

`generate` treats it like any other cache. Its layers return only the new keys and values from
`update`; the attention function hands them, with the queries, to the layer's attention object.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicCache

from inf_llm.attention.base import LayerAttention, Rule
from inf_llm.errors import UnsupportedInputError
from inf_llm.hf.rows import RowGroup
from inf_llm.memory.stats import MemoryStats
from inf_llm.unsaved import Unsaved

MakeAttention = Callable[[], LayerAttention]
Makers = dict[int, MakeAttention]
"""Per layer index, what makes its attention object."""


_Method = TypeVar("_Method", bound=Callable[..., Any])


def _plainly(method: _Method) -> _Method:
    """Run a method that changes state with ordinary tensors and no gradients.

    Under `torch.inference_mode` it would leave tensors behind that nobody may change outside it.
    """

    @functools.wraps(method)
    def plain(*args: Any, **kwargs: Any) -> Any:
        with torch.inference_mode(False), torch.no_grad():
            return method(*args, **kwargs)

    return plain  # type: ignore[return-value]


@dataclass(frozen=True)
class CacheStats:
    """What a cache holds and what it cost.

    Attributes:
        layers: one entry per layer that has a memory, in order.
        total: their sum; tokens are those of one layer.
    """

    layers: tuple[MemoryStats, ...]
    total: MemoryStats


class MemoryLayer(Unsaved, CacheLayerMixin):
    """One layer's memory of a batch.

    Args:
        make: makes an empty attention object for this layer.
    """

    is_compileable = False
    is_croppable = True
    is_sliding = False
    supports_early_init = False

    def __init__(self, make: MakeAttention) -> None:
        super().__init__()
        self._make = make
        self._held_dtype: torch.dtype | None = None
        self.rows = RowGroup(make)

    @_plainly
    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, rule: Rule) -> Tensor:
        """Feed the layer and get its attention output (B, H, L, Dv); see `RowGroup.attend`."""
        self.is_initialized = True
        self._check_dtype(k.dtype)
        return self.rows.attend(q, k, v, mask, rule)

    def _check_dtype(self, given: torch.dtype) -> None:
        held = self._held_dtype = self._held_dtype or given
        if given != held:
            raise UnsupportedInputError(
                f"this memory holds keys and values in {held}, and {given} ones are fed: feed all "
                "of a text in one dtype, with torch.autocast or without"
            )

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing to prepare."""
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """The new keys and values, as they are; the attention function stores them."""
        return key_states, value_states

    def get_seq_length(self, *args: Any) -> int:
        """Tokens seen, padding included."""
        return self.rows.seen

    def get_mask_sizes(self, query_length: int, *args: Any) -> tuple[int, int]:
        """Length and offset of the 2-D mask that transformers should prepare."""
        return self.rows.seen + query_length, 0

    def get_max_length(self) -> int:
        """No maximum."""
        return -1

    get_max_cache_shape = get_max_length  # its name before transformers 5.23

    def reset(self) -> None:
        """Forget everything."""
        recording = self.record_past
        self.rows = RowGroup(self._make)
        self.record_past = recording
        self.is_initialized, self._held_dtype = False, None

    def offload(self) -> None:
        """Sealed blocks are off the device already."""

    def prefetch(self) -> None:
        """Nothing to bring back."""

    @property
    def record_past(self) -> bool:
        """Whether `crop` can go back; transformers switches it on, and off again."""
        return self.rows.recording

    @record_past.setter
    def record_past(self, wanted: bool) -> None:
        self.rows.record(wanted)

    def activate_past_recording(self) -> None:
        """From now on `crop` must be able to go back."""
        self.record_past = True

    @_plainly
    def crop(self, tokens_to_remove: int) -> None:
        """Forget the newest `-tokens_to_remove` tokens.

        A positive number is the length to keep, as transformers had it before 5.23.

        Raises:
            CropError: there are fewer tokens, or the memory cannot go back to where they began.
        """
        if tokens_to_remove > 0:
            self.rows.crop(max(0, self.rows.seen - tokens_to_remove))
        else:
            self.rows.crop(-tokens_to_remove)

    @_plainly
    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Rows become the given ones (beam search)."""
        self.rows.select(beam_idx)

    @_plainly
    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep the given rows."""
        if indices.dtype == torch.bool:
            indices = indices.nonzero()[:, 0]
        self.rows.select(indices)

    @_plainly
    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat every row."""
        rows = torch.arange(self.rows.count).repeat_interleave(repeats)
        self.rows.select(rows)

    @_plainly
    def fork(self) -> MemoryLayer:
        """A copy that goes on by itself; sealed blocks are shared."""
        twin = MemoryLayer(self._make)
        twin.rows = self.rows.fork()
        twin._held_dtype = self._held_dtype
        twin.is_initialized = self.is_initialized
        return twin


class PatchCache(DynamicCache):
    """A cache that means something only to the patch it was made under: no other call feeds it.

    Attributes:
        feeding: whether a patched decoder's call feeds it now.
    """

    feeding = False

    def update(self, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """See `Cache.update`. Refused outside a feed of a patched decoder, as are the next two."""
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


class MemoryCache(Unsaved, PatchCache):
    """A cache of a patched model. Made by `generate`, or by `inf_llm.new_cache(model)`.

    Attributes:
        assists: whether its model guesses tokens for another one, which `generate` sets.
        makers: what made its layers: those of the patch that it belongs to.
    """

    assists = False
    makers: Makers

    @property
    def memories(self) -> list[MemoryLayer]:
        """The layers that have a memory, in order."""
        return [layer for layer in self.layers if isinstance(layer, MemoryLayer)]

    def alone_from(self, position: int | None) -> None:
        """From this token on (padding counted), every token chooses its blocks alone."""
        for layer in self.memories:
            layer.rows.alone_from(position)

    def activate_past_recording(self) -> None:
        """From now on `crop` must be able to go back, in every layer that can."""
        for layer in self.layers:
            if hasattr(layer, "activate_past_recording"):
                layer.activate_past_recording()

    def stats(self) -> CacheStats:
        """Tokens, blocks, bytes and traffic, per layer and in sum."""
        layers = tuple(layer.rows.stats() for layer in self.memories)
        return CacheStats(layers, MemoryStats.total(layers))

    def fork(self) -> MemoryCache:
        """A cache that goes on by itself from here: windows are copied, sealed blocks shared."""
        twin = MemoryCache()
        twin.makers = self.makers
        twin.layer_class_to_replicate = None
        twin.layers = [
            layer.fork() if isinstance(layer, MemoryLayer) else _copied_layer(layer)
            for layer in self.layers
        ]
        return twin

    def __deepcopy__(self, memo: dict[int, Any]) -> MemoryCache:
        twin = self.fork()
        twin.makers = memo.get(id(self.makers), self.makers)  # its model may be copied along
        return twin


def _copied_layer(layer: Any) -> Any:
    """A layer of transformers' own (linear attention, convolution) with copies of its state."""
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


def adopt(cache: Cache, makers: Makers) -> MemoryCache:
    """Turn the empty cache that `generate` made into a memory, keeping its identity.

    Args:
        cache: an empty, plain DynamicCache, or a memory already.
        makers: for every layer index with a memory, what makes its attention object.

    Raises:
        UnsupportedInputError: a cache of another kind, one that holds something, or a memory that
            was made under another patch.
    """
    if isinstance(cache, MemoryCache):
        if cache.makers is makers:
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
    install(cache.layers, makers)
    cache.layer_class_to_replicate = None
    cache.__class__ = MemoryCache
    memory = cast(MemoryCache, cache)
    memory.makers = makers
    return memory


def install(layers: list[Any], makers: Makers) -> None:
    """Put memory layers where attention layers are; others (linear, convolution) stay."""
    while len(layers) <= max(makers):
        layers.append(None)
    for index, make in makers.items():
        layers[index] = MemoryLayer(make)


def check_layers(layers: Sequence[Any], makers: Makers) -> str | None:
    """Why a model's cache layers cannot be replaced, or None if they can."""
    for index in makers:
        if index < len(layers) and hasattr(layers[index], "conv_states"):
            return f"layer {index} has attention and another recurrent state in one cache layer"
    return None
