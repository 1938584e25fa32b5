"""What sessions hold, and what one will: bytes on host and device."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from inf_llm.generation.session import Session
from inf_llm.hf.cache import MemoryCache
from inf_llm.settings import InfLLMSettings
from inf_llm.variants import SELECTION, SUMMARY

_ID_BYTES = 8  # of one entry in a list of token ids
_NUMBER_BYTES = 20  # of a block's entries: in a row's table, its holders, its slot


def footprint(sessions: Iterable[Session]) -> int:
    """Bytes on host and device: windows of each, sealed blocks and their index once.

    Forks of a session share its sealed blocks, so adding up `Session.stats` would count them again
    for every fork.
    """
    total = 0
    shared: dict[int, Any] = {}
    for session in sessions:
        total += _ID_BYTES * len(session.ids)
        if not isinstance(session.cache, MemoryCache):
            total += session.stats().device_bytes
            continue
        for layer in session.cache.memories:
            for member in layer.rows.members:
                total += member.stats().device_bytes
                store = getattr(getattr(member, "memory", None), "store", None)
                if store is not None:
                    total -= store.cache_bytes
                    shared[id(store)] = store
    return total + sum(
        store.block_bytes()[0] + store.index.nbytes + store.cache_bytes for store in shared.values()
    )


def predicted_host_bytes(config: Any, settings: InfLLMSettings, itemsize: int, tokens: int) -> int:
    """Bytes on the host that one row of `tokens` tokens will take with InfLLM in every layer.

    The sealed blocks and what finds them: keys and values; the summaries of every key head, or of
    every query head where they differ; their pages in int8, where there are several; and the
    numbers that say where a block is. A formula, not a measurement: `stats` has what is held.

    Args:
        config: the model's text configuration.
        settings: of the attention.
        itemsize: bytes of one number of a key.
        tokens: length of the row.
    """
    heads, groups = config.num_attention_heads, config.num_key_value_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    blocks = max(0, tokens - settings.n_init - settings.n_local) // settings.block_size
    summary = settings.summary.build(SUMMARY, settings.block_size)
    vectors = groups if summary.shared else heads
    selection = settings.selection.build(SELECTION, heads, groups, vectors)
    apart = selection.key_heads is not None
    pages = 2 * groups * settings.block_size * width * itemsize
    in_int8 = width * summary.pages + 4 if summary.pages > 1 else 0
    found_by = vectors * (width * itemsize + in_int8)
    per_block = pages + found_by + _NUMBER_BYTES * (groups if apart else 1)
    return int(config.num_hidden_layers * blocks * per_block)
