"""What sessions hold: bytes on host and device."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from inf_llm.generation.session import Session
from inf_llm.hf.cache import MemoryCache

_ID_BYTES = 8  # of one entry in a list of token ids


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
        store.most_bytes + store.index.nbytes + store.cache_bytes for store in shared.values()
    )
