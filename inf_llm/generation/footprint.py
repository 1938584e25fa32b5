"""Bytes of sessions on host and device."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from inf_llm.generation.session import Session
from inf_llm.hf.cache import MemoryCache

_ID_BYTES = 8  # bytes of one entry in a list of token ids


@dataclass(frozen=True)
class _Held:
    """Bytes and stores of a session, valid for one pair of token counts.

    Attributes:
        fed: number of tokens in the memory of the session.
        tokens: number of all its tokens.
        unshared: bytes that no other session shares.
        stores: stores of its sealed blocks, which forks of the session share.
    """

    fed: int
    tokens: int
    unshared: int
    stores: tuple[Any, ...] = ()


class Footprints:
    """Counter of the bytes of sessions; a session is measured again only if its tokens changed."""

    def __init__(self) -> None:
        self._known: WeakKeyDictionary[Session, _Held] = WeakKeyDictionary()

    def of(self, sessions: Iterable[Session]) -> int:
        """Return the bytes on host and device; sealed blocks and indexes of forks count once.

        Forks of a session share its sealed blocks, so a sum of `Session.stats` would count the
        blocks again for every fork.
        """
        held = [self._held(session) for session in sessions]
        stores = {id(store): store for each in held for store in each.stores}
        shared = sum(s.most_bytes + s.index.nbytes + s.cache_bytes for s in stores.values())
        return shared + sum(each.unshared for each in held)

    def _held(self, session: Session) -> _Held:
        known = self._known.get(session)
        if known is None or (known.fed, known.tokens) != (session.fed, len(session.ids)):
            known = self._known[session] = _look(session)
        return known


def footprint(sessions: Iterable[Session]) -> int:
    """Measure sessions and return their bytes on host and device; see `Footprints.of`."""
    return Footprints().of(sessions)


def _look(session: Session) -> _Held:
    fed, tokens = session.fed, len(session.ids)
    if not isinstance(session.cache, MemoryCache):
        return _Held(fed, tokens, _ID_BYTES * tokens + session.stats().device_bytes)
    members = [member for layer in session.cache.memories for member in layer.rows.members]
    unshared = _ID_BYTES * tokens + sum(member.stats().device_bytes for member in members)
    found = (getattr(getattr(member, "memory", None), "store", None) for member in members)
    stores = tuple(store for store in found if store is not None)
    return _Held(fed, tokens, unshared - sum(store.cache_bytes for store in stores), stores)
