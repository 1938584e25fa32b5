"""What one layer holds of a text: bytes by place, asked of the classes that hold it.

A memory of the layer's shape seals one block of ones, and says what that took. So summaries, codecs
and indexes count their own bytes, those from outside included.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import astuple, dataclass, replace

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

_NUMBER_BYTES = 20  # of a block's entries: in a row's table, its holders, its slot


@dataclass(frozen=True)
class Held:
    """Bytes.

    Attributes:
        window: sinks and window, or all keys and values where all are kept; on the device.
        recalled: recalled blocks, on the device.
        blocks: sealed blocks, on the host or on a disk.
        index: summaries of blocks, on the device.
        host_index: those that an index keeps on the host.
        tables: numbers that say where blocks are, on the host.
    """

    window: int = 0
    recalled: int = 0
    blocks: int = 0
    index: int = 0
    host_index: int = 0
    tables: int = 0

    def __add__(self, other: Held) -> Held:
        return Held(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))


@dataclass(frozen=True)
class Feed:
    """What is read, and how.

    Attributes:
        tokens: length of the text.
        dtype: of keys and values.
        slots: whether recalled blocks are kept apart from the host, as on every device but a CPU.
    """

    tokens: int
    dtype: torch.dtype
    slots: bool


def held_by_layers(shapes: Iterable[LayerShape], settings: OriginSettings, feed: Feed) -> Held:
    """What layers will hold of one row; those of one shape are asked once.

    Raises:
        UnsupportedModelError: an attention type from outside does not say what it holds.
    """
    known: dict[object, Held] = {}
    total = Held()
    for shape in shapes:
        alike = replace(shape, index=0), settings.for_layer(shape.index)
        if alike not in known:
            known[alike] = _held_by_layer(shape, settings, feed)
        total += known[alike]
    return total


def _held_by_layer(shape: LayerShape, settings: OriginSettings, feed: Feed) -> Held:
    per_token = shape.numbers * feed.dtype.itemsize
    if not isinstance(settings, WindowSettings):  # the model's own cache
        longest = shape.chunk or shape.window
        kept = feed.tokens if longest is None else min(feed.tokens, longest - 1)
        return Held(window=kept * shape.cached * feed.dtype.itemsize)
    make = maker_of_window(Rope.none(), settings, shape.window, shape.chunk)
    own = settings.for_layer(shape.index)
    attention = make() if make else ATTENTION.get(own.type)(Rope.none(), own)
    if isinstance(attention, InfLLMAttention):
        return _in_memory(attention, shape, feed)
    if isinstance(attention, WindowAttention):
        return Held(window=_in_window(attention, feed.tokens) * per_token)
    raise UnsupportedModelError(
        f"type {own.type!r} cannot be planned: {type(attention).__name__} is neither a window nor "
        "blocks of this package"
    )


def _in_window(attention: WindowAttention, tokens: int) -> int:
    """Tokens that sinks and window have room for."""
    keep = attention.n_local
    room = _room(attention.recent, None if keep is None else keep - 1, attention.block, tokens)
    if isinstance(attention, SinkAttention):
        room += min(attention.n_init, tokens)
    if isinstance(attention, MiddleAttention):
        room += _room(Recent(None), None, attention.block, tokens - attention.n_init)
    return room


def _room(recent: Recent, keep: int | None, step: int, tokens: int) -> int:
    """The room of a queue that is fed so many tokens by `step` and keeps so many, None for all."""
    twin = Recent(recent.capacity)
    nothing = torch.empty(1, 1, step, 1, device="meta")
    while tokens > 0 and twin.room != recent.capacity:
        twin.append(k=nothing[:, :, : min(step, tokens)])
        twin.drop(0 if keep is None else max(0, len(twin) - keep))
        tokens -= step
    return twin.room


@torch.no_grad()
def _in_memory(attention: InfLLMAttention, shape: LayerShape, feed: Feed) -> Held:
    settings, recent = attention.settings, attention.memory.recent
    room = _room(recent, settings.n_local, settings.exc_block_size, feed.tokens)
    blocks = max(0, feed.tokens - settings.n_init - settings.n_local) // settings.block_size
    sample = _sample(settings, shape, feed)
    window = room * sample.recent.nbytes // sample.recent.room
    sinks = min(settings.n_init, max(0, feed.tokens - settings.n_local))
    window += sinks * shape.numbers * feed.dtype.itemsize
    store, stats = sample.store, sample.stats()
    if not blocks or store is None:
        return Held(window)
    recalled = store.cache_bytes
    if not recalled:
        recalled = (stats.device_bytes - sample.nbytes) * min(settings.topk, blocks)
    index, host = blocks * stats.index_bytes, store.index.on_host
    units = 1 if store.selection.key_heads is None else shape.groups
    return Held(
        window=window,
        recalled=recalled,
        blocks=blocks * stats.host_bytes,
        index=0 if host else index,
        host_index=index if host else 0,
        tables=blocks * units * _NUMBER_BYTES,
    )


def _sample(settings: InfLLMSettings, shape: LayerShape, feed: Feed) -> BlockMemory:
    """A memory that has sealed and recalled one block, and keeps nothing in its window."""
    size = settings.block_size
    near = replace(settings, n_init=0, tier=None)  # a sample needs no file
    memory = BlockMemory(near, 0, size, feed.slots)

    def ones(heads: int, *rest: int) -> torch.Tensor:
        return torch.ones(1, heads, *rest, dtype=feed.dtype)

    k = ones(shape.groups, size, shape.key_width)
    memory.append(k, ones(shape.groups, size, shape.value_width), shape.heads, near_k=k)
    memory.settle()
    if not feed.slots:
        memory.recall(Query(ones(shape.heads, 1, shape.key_width)))
    return memory
