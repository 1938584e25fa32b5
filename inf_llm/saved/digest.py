"""Digests of segments: SHA-256 over the SHA-256 of each piece; threads can share the pieces."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import Executor, Future
from pathlib import Path

PIECE = 16 << 20
"""Bytes of a piece; the last one may have fewer."""


class Digest:
    """The digest of a stream of bytes."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._piece, self._room = hashlib.sha256(), PIECE

    def update(self, data: bytes | memoryview) -> None:
        """Append bytes to the stream."""
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
        """Return the digest in hexadecimal; `update` may not be called after this."""
        if self._room < PIECE:
            self._next_piece()
        return _joined(self._pieces)


def digesting(path: Path, threads: Executor) -> Callable[[], str]:
    """Start to compute the digest of a file; return a function that waits for the digest.

    Raises:
        OSError: the file cannot be read.
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
