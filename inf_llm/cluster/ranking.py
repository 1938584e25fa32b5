"""In which order replicas are asked for a memory."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


def ranked(key: str, replicas: Sequence[str]) -> list[str]:
    """Replicas by how likely they hold a memory, the likeliest first.

    A document's id names the replica that read it. After that come all in the order of a hash of
    key and name (rendezvous hashing, Thaler and Ravishankar 1998): every front that knows the same
    replicas finds the same order, and one replica more or less moves only its own share of keys.
    """
    named = {name for name in replicas if f"-{name}-" in key}
    return sorted(replicas, key=lambda name: (name not in named, _hash(key, name)))


def idle_first(order: Sequence[T], busy: Callable[[T], int], spill: int) -> list[T]:
    """The same order, but behind the others those that are `busy` with more than `spill` requests,
    the busiest last."""

    def above(replica: T) -> int:
        requests = busy(replica)
        return requests if requests > spill else 0

    return sorted(order, key=above)


def _hash(key: str, name: str) -> bytes:
    return hashlib.sha256(f"{name}\0{key}".encode("utf-8", "replace")).digest()
