"""A short run that measures the speed of reading and answering at two lengths of a text.

The tokens between the two lengths are not read. The memory is filled with copies of keys and values
that it holds already, so attention and search do as much work as after a text of that length.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicLayer

from inf_llm.attention.inf_llm import InfLLMAttention
from inf_llm.attention.middle import MiddleAttention
from inf_llm.generation.prefill import empty_cache, feed_length, held, prefill
from inf_llm.hf.cache import MemoryCache
from inf_llm.hf.dtype import dtype_name
from inf_llm.hf.patch import patched
from inf_llm.hf.recording import token_ids
from inf_llm.plan.pace import Pace, Point
from inf_llm.settings import InfLLMSettings, WindowSettings

_FURTHEST, _MAX_BYTES = 1 << 17, 2 << 30
"""The length that a memory is filled to: 128k tokens, or more if its blocks and index then take
less than 2 GiB. For longer texts the speed is extrapolated on a straight line."""
_PIECE, _PIECES, _ANSWERED = 512, 4, 12
_FIRST = 1024  # tokens read first by a model without a window


Clock = Callable[[], float]
"""Function that returns seconds since a fixed moment: `time.perf_counter` or `time.process_time`.

`time.process_time` counts only the CPU time of this process, so it says little about a GPU."""


@torch.no_grad()
def calibrate(model: Any, tokens: int, chunk_size: int, clock: Clock = time.perf_counter) -> Pace:
    """Measure the speed of a model, patched or not, on texts of up to `tokens` tokens.

    Args:
        model: the model, on the device and in the format that it will run in.
        tokens: length of the text to plan for.
        chunk_size: tokens per forward pass of the prefill.
        clock: source of the times.
    """
    step = feed_length(model, chunk_size)
    piece = feed_length(model, _PIECE)
    first = -(-_first(model) // piece) * piece
    _read(model, empty_cache(model), piece, piece, clock)  # warm-up
    cache = empty_cache(model)
    first_seconds = _read(model, cache, first, step, clock)
    near = far = _point(model, cache, piece, clock)
    if isinstance(cache, MemoryCache) or tokens > near.tokens:
        more = min(tokens, _furthest(cache)) - int(cache.get_seq_length())
        if more > piece:
            fill(cache, more, piece)
            far = _point(model, cache, piece, clock)
    return Pace(first, first_seconds, near, far, dtype_name(model.dtype))


def _furthest(cache: Any) -> int:
    """Return the most tokens that a memory is filled with; see `_FURTHEST`."""
    stats = held(cache)
    sealed = stats.host_bytes + stats.index_bytes
    return max(_FURTHEST, _MAX_BYTES * stats.tokens // sealed) if sealed else _FURTHEST


def _first(model: Any) -> int:
    """Return the number of tokens that fill the sinks, the window and `topk` blocks."""
    state = patched(model)
    settings = None if state is None else state.settings
    if not isinstance(settings, WindowSettings):
        return _FIRST
    blocks = settings.topk * settings.block_size if isinstance(settings, InfLLMSettings) else 0
    return settings.n_init + settings.n_local + blocks


def _point(model: Any, cache: Any, piece: int, clock: Clock) -> Point:
    for step in (piece, 1):  # warm-up with a filled memory
        _read(model, cache, 2 * step, step, clock)
    before = int(cache.get_seq_length())
    reading = _read(model, cache, _PIECES * piece, piece, clock) / (_PIECES * piece)
    answering = _read(model, cache, _ANSWERED, 1, clock) / _ANSWERED
    return Point(before + _PIECES * piece // 2, reading, answering)


def _read(model: Any, cache: Any, count: int, step: int, clock: Clock) -> float:
    """Feed `count` tokens, `step` at a time, and return the seconds that this takes."""
    ids = token_ids(model, count)
    _wait()
    started = clock()
    for _ in prefill(model, ids, cache, step):
        pass
    _wait()
    return clock() - started


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def fill(cache: Any, count: int, piece: int) -> None:
    """Add copies of `count` held keys and values to a cache, `piece` tokens at a time."""
    if not isinstance(cache, MemoryCache):
        for layer in cache.layers:
            _fill_plain(layer, count)
        return
    for memory in cache.memories:
        for attention in memory.rows.members:
            _by_pieces(_filler(attention), count, piece)
            attention.seen += count
        memory.rows.seen += count


def _fill_plain(layer: Any, count: int) -> None:
    if type(layer) is DynamicLayer:
        assert layer.keys is not None
        assert layer.values is not None
        layer.keys, layer.values = (_longer(each, count) for each in (layer.keys, layer.values))
    elif hasattr(layer, "cumulative_length"):  # a full sliding window
        layer.cumulative_length += count


def _longer(held: Tensor, count: int) -> Tensor:
    """Return keys or values (B, G, n, D) with copies of `count` of their tokens appended."""
    at = torch.arange(count, device=held.device) % held.shape[2]
    return torch.cat((held, held.index_select(2, at)), 2)


def _filler(attention: Any) -> Callable[[int], None] | None:
    """Return a function that adds tokens to an attention object; None if it keeps only a window."""
    if isinstance(attention, InfLLMAttention):
        return lambda count: _fill_memory(attention.memory, count)
    if isinstance(attention, MiddleAttention):
        return lambda count: _fill_middle(attention, count)
    return None


def _by_pieces(fill_one: Callable[[int], None] | None, count: int, piece: int) -> None:
    while fill_one is not None and count > 0:
        fill_one(min(piece, count))
        count -= piece


def _fill_memory(memory: Any, count: int) -> None:
    """Append tokens drawn at random from the window: blocks differ, and recalls are spread."""
    recent = memory.recent
    drawn = torch.randint(len(recent), (count,), device=recent["k"].device)
    k, near_k, v = (recent[name].index_select(2, drawn) for name in ("k", "near_k", "v"))
    memory.append(k, v, recent["mass"].shape[1], near_k=near_k)
    memory.settle()


def _fill_middle(attention: MiddleAttention, count: int) -> None:
    held = attention.recent
    drawn = torch.randint(len(held), (count,), device=held["k"].device)
    k, v = (held[name].index_select(2, drawn) for name in ("k", "v"))
    attention.middle.append(k, v, attention.n_init)
