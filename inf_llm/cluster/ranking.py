"""The order of replicas in which a request tries them for its memory."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


def ranked(key: str, replicas: Sequence[str]) -> list[str]:
    """Sort replicas by how likely they hold a memory, the most likely one first.

    The id of a document contains the name of the replica that read it, and this replica is first.
    The others follow in the order of a hash of key and name (rendezvous hashing, Thaler and
    Ravishankar 1998). Every front with the same replicas finds the same order, and an added or
    removed replica moves only its own share of keys.
    """
    named = {name for name in replicas if f"-{name}-" in key}
    return sorted(replicas, key=lambda name: (name not in named, _hash(key, name)))


def idle_first(order: Sequence[T], busy: Callable[[T], int], spill: int) -> list[T]:
    """Move the replicas with more than `spill` requests to the end, the busiest one last.

    `busy` returns the number of requests of a replica."""

    def above(replica: T) -> int:
        requests = busy(replica)
        return requests if requests > spill else 0

    return sorted(order, key=above)


def _hash(key: str, name: str) -> bytes:
    return hashlib.sha256(f"{name}\0{key}".encode("utf-8", "replace")).digest()
