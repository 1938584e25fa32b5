"""Feeding of a text to a model, in chunks of whole execution blocks.

`inf_llm.attention.inf_llm` applies the setting `prefill`, which can select dense attention here.
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
"""Most bytes of the logits of one feed, counted as float32."""

Progress = Callable[[int, int], None]
"""A function that is called with the number of tokens done and the total number of tokens."""


def prefill(
    model: Any, ids: Tensor, cache: Any, step: int, logits: int = 1
) -> Iterator[tuple[Tensor, Tensor]]:
    """Feed tokens (B, N) after those in a memory, `step` tokens at a time.

    Yields:
        After each feed its tokens (B, n), and logits (B, k, V) of the last `logits` of them, or of
        all for 0.
    """
    for part in ids.split(step, 1) if ids.numel() else ():
        yield part, feed(model, part, cache, logits)


def feed(model: Any, ids: Tensor, cache: Any, logits: int = 1) -> Tensor:
    """Feed tokens (B, n) after those in a memory; return logits as `prefill` yields them."""
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
    """Return the number of first tokens of a prompt that are fed in whole execution blocks.

    At least one token is left over: its logits give the first token of the answer.
    """
    block = execution_block(model)
    return (tokens - 1) // block * block


def empty_cache(model: Any) -> Any:
    """Return an empty memory for a patched model, or a KV cache of all tokens for any other."""
    state = patched(model)
    if state is not None and state.factories:
        return new_cache(model)
    return DynamicCache(config=model.config.get_text_config(decoder=True))


def held(cache: Any) -> MemoryStats:
    """Return the counts of a memory over all layers; of a plain cache the tokens and bytes only."""
    if isinstance(cache, MemoryCache):
        return cache.stats().total
    pairs = [(getattr(layer, "keys", None), layer) for layer in cache.layers]
    size = sum(keys.nbytes + layer.values.nbytes for keys, layer in pairs if torch.is_tensor(keys))
    return MemoryStats(tokens=int(cache.get_seq_length()), device_bytes=size)


def execution_block(model: Any) -> int:
    """Return the number of tokens that retrieve blocks together; 1 without retrieval."""
    state = patched(model)
    return int(getattr(state.settings, "exc_block_size", 1)) if state is not None else 1


def feed_length(model: Any, chunk_size: int) -> int:
    """Return the length of a chunk rounded down to whole execution blocks, at least one."""
    block = execution_block(model)
    return max(block, chunk_size // block * block)


def scored_length(model: Any, chunk_size: int) -> int:
    """Return the length of a feed whose logits are all kept; a large vocabulary shortens it.

    The length is at least one execution block; see `feed_length`.
    """
    vocabulary = model.config.get_text_config(decoder=True).vocab_size
    rows = LOGITS_BYTES // (4 * vocabulary)
    return feed_length(model, max(1, min(chunk_size, max(rows, execution_block(model)))))
