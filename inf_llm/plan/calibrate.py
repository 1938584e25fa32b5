"""A short run that measures how fast a model reads and answers, near and far into a text.

What lies between is not read: the memory is filled with keys and values that it holds already, so
that attention and search have as much to do as behind a text of that length.
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

_FURTHEST, _MOST_BYTES = 1 << 17, 2 << 30
"""Tokens that a memory is filled with at most, or more that take so many bytes: what is beyond
follows the same line."""
_PIECE, _PIECES, _ANSWERED = 512, 4, 12
_FIRST = 1024  # tokens read first, where no window must be filled


Clock = Callable[[], float]
"""Seconds since some moment: `time.perf_counter`, or `time.process_time`, which counts those of
this process alone and means little where a GPU computes."""


@torch.no_grad()
def calibrate(model: Any, tokens: int, chunk_size: int, clock: Clock = time.perf_counter) -> Pace:
    """Measure a model, patched or not, on texts of up to `tokens` tokens.

    Args:
        model: as it will read.
        tokens: length of the text to plan for.
        chunk_size: tokens fed at a time.
        clock: what time is read from.
    """
    step = feed_length(model, chunk_size)
    piece = feed_length(model, _PIECE)
    first = -(-_first(model) // piece) * piece
    _read(model, empty_cache(model), piece, piece, clock)  # what only the first run does
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
    """See `_FURTHEST`."""
    stats = held(cache)
    sealed = stats.host_bytes + stats.index_bytes
    return max(_FURTHEST, _MOST_BYTES * stats.tokens // sealed) if sealed else _FURTHEST


def _first(model: Any) -> int:
    """Tokens that fill the window, and as many blocks as are recalled."""
    state = patched(model)
    settings = None if state is None else state.settings
    if not isinstance(settings, WindowSettings):
        return _FIRST
    blocks = settings.topk * settings.block_size if isinstance(settings, InfLLMSettings) else 0
    return settings.n_init + settings.n_local + blocks


def _point(model: Any, cache: Any, piece: int, clock: Clock) -> Point:
    for step in (piece, 1):  # what only the first of its kind does behind a filled memory
        _read(model, cache, 2 * step, step, clock)
    before = int(cache.get_seq_length())
    reading = _read(model, cache, _PIECES * piece, piece, clock) / (_PIECES * piece)
    answering = _read(model, cache, _ANSWERED, 1, clock) / _ANSWERED
    return Point(before + _PIECES * piece // 2, reading, answering)


def _read(model: Any, cache: Any, count: int, step: int, clock: Clock) -> float:
    """Seconds in which so many tokens are fed."""
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
    """Let a cache hold `count` tokens more, of keys and values that it holds, `piece` at a time."""
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
    elif hasattr(layer, "cumulative_length"):  # a window, which is full
        layer.cumulative_length += count


def _longer(held: Tensor, count: int) -> Tensor:
    """Keys or values (B, G, n, D) with `count` more of the same."""
    at = torch.arange(count, device=held.device) % held.shape[2]
    return torch.cat((held, held.index_select(2, at)), 2)


def _filler(attention: Any) -> Callable[[int], None] | None:
    """What lets an attention object hold some tokens more; None where its window is all."""
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
    """Tokens drawn anew each time, so that blocks differ and choices are spread."""
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
