"""The memory of one layer for a text: bytes per place, measured on the classes that hold it.

A memory with the shape of the layer seals one block of ones, and its size is measured. So every
summary, codec and index counts its own bytes, also one that is defined outside this package.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterable
from dataclasses import astuple, dataclass, replace
from fractions import Fraction
from typing import Any

import torch

from inf_llm.attention.inf_llm import InfLLMAttention
from inf_llm.attention.middle import MiddleAttention
from inf_llm.attention.window import SinkAttention, WindowAttention
from inf_llm.errors import UnsupportedModelError
from inf_llm.hf.outline import LayerShape
from inf_llm.hf.patch import maker_of_window
from inf_llm.memory.block_memory import BlockMemory
from inf_llm.memory.recent import Recent
from inf_llm.memory.search import Query
from inf_llm.rope import Rope
from inf_llm.settings import InfLLMSettings, OriginSettings, WindowSettings
from inf_llm.variants import ATTENTION

_NUMBER_BYTES = 20  # per block, in three tables: those of its row, its holders and its slot


@dataclass(frozen=True)
class Held:
    """Bytes of one or several layers, per place.

    Attributes:
        window: sinks and local window, or all keys and values if all are kept; on the device.
        recalled: recalled blocks, on the device.
        blocks: sealed blocks, in host memory or on a disk.
        index: summaries of blocks, on the device.
        host_index: summaries of blocks that an index keeps in host memory.
        tables: tables of the places of blocks, in host memory.
    """

    window: int = 0
    recalled: int = 0
    blocks: int = 0
    index: int = 0
    host_index: int = 0
    tables: int = 0

    def __mul__(self, count: int) -> Held:
        return Held(*(count * part for part in astuple(self)))

    def __add__(self, other: Held) -> Held:
        return Held(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))


@dataclass(frozen=True)
class Feed:
    """The text that is read, and the format of its keys and values.

    Attributes:
        tokens: length of the text.
        dtype: format of keys and values.
        slots: whether recalled blocks are copied to slots, as on every device except a CPU.
    """

    tokens: int
    dtype: torch.dtype
    slots: bool


def held_by_layers(shapes: Iterable[LayerShape], settings: OriginSettings, feed: Feed) -> Held:
    """Return the bytes that layers hold of one row; equal layers are measured once.

    Raises:
        UnsupportedModelError: an attention type from outside this package cannot be planned.
    """
    total = Held()
    for (shape, layer_settings), count in _kinds(tuple(shapes), settings).items():
        total += _held_by_layer(shape, layer_settings, feed) * count
    return total


@functools.lru_cache(maxsize=16)
def _kinds(
    shapes: tuple[LayerShape, ...], settings: OriginSettings
) -> Counter[tuple[LayerShape, OriginSettings]]:
    """Count the layers that have the same shape and the same settings."""
    return Counter((replace(shape, index=0), settings.for_layer(shape.index)) for shape in shapes)


def _held_by_layer(shape: LayerShape, settings: OriginSettings, feed: Feed) -> Held:
    per_token = shape.numbers * feed.dtype.itemsize
    if not isinstance(settings, WindowSettings):  # the model's own cache
        longest = shape.chunk or shape.window
        kept = feed.tokens if longest is None else min(feed.tokens, longest - 1)
        return Held(window=kept * shape.cached * feed.dtype.itemsize)
    attention = _attention(shape, settings)
    if isinstance(attention, InfLLMAttention):
        return _in_memory(attention, shape, feed)
    if isinstance(attention, WindowAttention):
        return Held(window=_in_window(attention, feed.tokens) * per_token)
    raise UnsupportedModelError(
        f"type {settings.type!r} cannot be planned: {type(attention).__name__} is neither a window "
        "nor blocks of this package"
    )


@functools.lru_cache(maxsize=16)
def _attention(shape: LayerShape, settings: WindowSettings) -> Any:
    """Return an empty attention object of a layer, whose sizes are read."""
    make = maker_of_window(Rope.none(), settings, shape.window, shape.chunk)
    return make() if make else ATTENTION.get(settings.type)(Rope.none(), settings)


def _in_window(attention: WindowAttention, tokens: int) -> int:
    """Return the number of tokens for which sinks and window have room."""
    keep = attention.n_local
    room = _room(
        attention.recent.capacity, None if keep is None else keep - 1, attention.block, tokens
    )
    if isinstance(attention, SinkAttention):
        room += min(attention.n_init, tokens)
    if isinstance(attention, MiddleAttention):
        room += _room(Recent(None).capacity, None, attention.block, tokens - attention.n_init)
    return room


@functools.lru_cache(maxsize=256)
def _room(capacity: int | None, keep: int | None, step: int, tokens: int) -> int:
    """Return the final room of a queue that gets `tokens` and keeps `keep` of them (None: all)."""
    queue = Recent(capacity)
    nothing = torch.empty(1, 1, step, 1, device="meta")
    while tokens > 0 and queue.room != capacity:
        queue.append(k=nothing[:, :, : min(step, tokens)])
        queue.drop(0 if keep is None else max(0, len(queue) - keep))
        tokens -= step
    return queue.room


def _in_memory(attention: InfLLMAttention, shape: LayerShape, feed: Feed) -> Held:
    settings = attention.settings
    room = _room(
        attention.memory.recent.capacity, settings.n_local, settings.exc_block_size, feed.tokens
    )
    blocks = max(0, feed.tokens - settings.n_init - settings.n_local) // settings.block_size
    one = _one_block(settings, shape, feed.dtype, feed.slots)
    window = int(room * one.window)
    sinks = min(settings.n_init, max(0, feed.tokens - settings.n_local))
    window += sinks * shape.numbers * feed.dtype.itemsize
    if not blocks:
        return Held(window)
    recalled = one.cache or one.recalled * min(settings.topk, blocks)
    index = blocks * one.index
    return Held(
        window=window,
        recalled=recalled,
        blocks=blocks * one.host,
        index=0 if one.index_on_host else index,
        host_index=index if one.index_on_host else 0,
        tables=blocks * one.units * _NUMBER_BYTES,
    )


@dataclass(frozen=True)
class _OneBlock:
    """Bytes of a memory that holds one block.

    Attributes:
        window: bytes per token in the window.
        cache: bytes of all slots on the device; 0 if blocks are recalled without slots.
        recalled: bytes of a recalled block, if there are no slots.
        host: bytes of a sealed block.
        index: bytes of its summary in the index.
        index_on_host: whether the index is in host memory.
        units: number of entries of a block in the tables.
    """

    window: Fraction
    cache: int
    recalled: int
    host: int
    index: int
    index_on_host: bool
    units: int


@functools.lru_cache(maxsize=16)
@torch.no_grad()
def _one_block(
    settings: InfLLMSettings, shape: LayerShape, dtype: torch.dtype, slots: bool
) -> _OneBlock:
    """Seal and recall one block, and measure its bytes."""
    size = settings.block_size
    near = replace(settings, n_init=0, tier=None)  # a sample needs no file
    memory = BlockMemory(near, 0, size, slots)

    def ones(heads: int, *rest: int) -> torch.Tensor:
        return torch.ones(1, heads, *rest, dtype=dtype)

    k = ones(shape.groups, size, shape.key_width)
    memory.append(k, ones(shape.groups, size, shape.value_width), shape.heads, near_k=k)
    memory.settle()
    if not slots:
        memory.recall(Query(ones(shape.heads, 1, shape.key_width)))
    store, stats = memory.store, memory.stats()
    assert store is not None
    return _OneBlock(
        Fraction(memory.recent.nbytes, memory.recent.room),
        store.cache_bytes,
        stats.device_bytes - memory.nbytes,
        stats.host_bytes,
        stats.index_bytes,
        store.index.on_host,
        1 if store.selection.key_heads is None else shape.groups,
    )
