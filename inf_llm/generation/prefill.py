"""Feeding a text to a model, a chunk of whole execution blocks at a time.

Whether the setting `prefill` has it read densely is decided in `inf_llm.attention.inf_llm`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from inf_llm.hf.cache import MemoryCache
from inf_llm.hf.decoder import with_cache
from inf_llm.hf.patch import new_cache, patched
from inf_llm.memory.stats import MemoryStats

LOGITS_BYTES = 1 << 28
"""Memory that the logits of one feed may take, counted as float32."""

Progress = Callable[[int, int], None]
"""Called with the tokens done and the tokens in all."""


def prefill(
    model: Any, ids: Tensor, cache: Any, step: int, logits: int = 1
) -> Iterator[tuple[Tensor, Tensor]]:
    """Feed all tokens (B, N) behind what a memory holds, `step` at a time.

    Gives after every feed its tokens (B, n) and logits (B, k, V) of the last `logits` of them, or
    of all where that is 0.
    """
    for part in ids.split(step, 1) if ids.numel() else ():
        yield part, feed(model, part, cache, logits)


def feed(model: Any, ids: Tensor, cache: Any, logits: int = 1) -> Tensor:
    """Feed tokens (B, n) behind what a memory holds; returns logits as `prefill` gives them."""
    output = model(
        input_ids=ids,
        output_hidden_states=False,
        output_attentions=False,
        logits_to_keep=logits,
        **with_cache(model, cache),
    )
    found: Tensor = output.logits
    return found


def whole_blocks(model: Any, tokens: int) -> int:
    """How many of the first tokens of a prompt are fed in whole execution blocks.

    One at least stays behind: its logits begin the answer.
    """
    block = execution_block(model)
    return (tokens - 1) // block * block


def empty_cache(model: Any) -> Any:
    """A memory for a patched model; for any other, the cache that keeps every token."""
    state = patched(model)
    if state is not None and state.makers:
        return new_cache(model)
    return DynamicCache(config=model.config.get_text_config(decoder=True))


def held(cache: Any) -> MemoryStats:
    """What a memory holds and what it cost, over all layers; of a plain cache keys and values."""
    if isinstance(cache, MemoryCache):
        return cache.stats().total
    pairs = [(getattr(layer, "keys", None), layer) for layer in cache.layers]
    size = sum(keys.nbytes + layer.values.nbytes for keys, layer in pairs if torch.is_tensor(keys))
    return MemoryStats(tokens=int(cache.get_seq_length()), device_bytes=size)


def execution_block(model: Any) -> int:
    """Tokens that retrieve together; 1 where nothing is retrieved."""
    state = patched(model)
    return int(getattr(state.settings, "exc_block_size", 1)) if state is not None else 1


def feed_length(model: Any, chunk_size: int) -> int:
    """The longest feed of whole execution blocks that a chunk has room for; one at least."""
    block = execution_block(model)
    return max(block, chunk_size // block * block)


def scored_length(model: Any, chunk_size: int) -> int:
    """The same where all logits of a feed are kept; fewer where the vocabulary is large."""
    vocabulary = model.config.get_text_config(decoder=True).vocab_size
    rows = LOGITS_BYTES // (4 * vocabulary)
    return feed_length(model, max(1, min(chunk_size, max(rows, execution_block(model)))))
