"""Digests of segments: SHA-256 of the SHA-256 of their pieces, which several threads can make."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import Executor, Future
from pathlib import Path

PIECE = 16 << 20
"""Bytes of a piece; the last one may have fewer."""


class Digest:
    """The digest of bytes that come one after another."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._piece, self._room = hashlib.sha256(), PIECE

    def update(self, data: bytes | memoryview) -> None:
        """More bytes."""
        rest = memoryview(data).cast("B")
        while len(rest):
            now, rest = rest[: self._room], rest[self._room :]
            self._piece.update(now)
            self._room -= len(now)
            if not self._room:
                self._next_piece()

    def _next_piece(self) -> None:
        self._pieces.append(self._piece.digest())
        self._piece, self._room = hashlib.sha256(), PIECE

    def hexdigest(self) -> str:
        """In hexadecimal; nothing may come after that."""
        if self._room < PIECE:
            self._next_piece()
        return _joined(self._pieces)


def digesting(path: Path, threads: Executor) -> Callable[[], str]:
    """Begin to digest a file; what waits for its digest.

    Raises:
        OSError: it cannot be read.
    """
    starts = range(0, path.stat().st_size, PIECE)
    pieces: list[Future[bytes]] = [threads.submit(_of_piece, path, start) for start in starts]
    return lambda: _joined([piece.result() for piece in pieces])


def _of_piece(path: Path, start: int) -> bytes:
    with path.open("rb") as file:
        file.seek(start)
        return hashlib.sha256(file.read(PIECE)).digest()


def _joined(pieces: list[bytes]) -> str:
    return hashlib.sha256(b"".join(pieces)).hexdigest()
