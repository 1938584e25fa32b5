"""Which servers use a folder: one alone, or any number that share it."""

from __future__ import annotations

import uuid
from pathlib import Path

from filelock import FileLock, Timeout

from inf_llm.errors import SavedMemoryError

DOOR_SECONDS = 30.0
"""In which another server that shares the folder has come in."""


class Occupancy:
    """A server's place in a folder, until it is released or the process ends.

    A server alone holds the lock of the folder. Those that share it hold a lock each, and the
    folder's only while they come in, so that the first can do what no other may see.

    Args:
        folder: must exist.
        shared: whether others that share it too may use it at the same time.

    Attributes:
        first: whether no other server uses the folder.

    Raises:
        SavedMemoryError: another server uses it and does not share it, or shares it and this one
            does not.
    """

    def __init__(self, folder: Path, shared: bool) -> None:
        self._door = FileLock(folder / "lock", timeout=DOOR_SECONDS if shared else 0, mode=0o600)
        self._place = FileLock(folder / f"server-{uuid.uuid4().hex}.lock", timeout=0, mode=0o600)
        try:
            self._door.acquire()
        except Timeout:
            raise _used(folder) from None
        self.first = not [file for file in folder.glob("server-*.lock") if _held(file)]
        if shared:
            self._place.acquire()
        elif not self.first:
            self._door.release()
            raise _used(folder)

    def settle(self) -> None:
        """Let others come in that share the folder."""
        if self._place.is_locked:
            self._door.release()

    def release(self) -> None:
        """Leave the folder to others."""
        self._place.release()
        self._door.release()


def _held(file: Path) -> bool:
    """Whether a server holds a lock; that of one that has ended is removed."""
    lock = FileLock(file, timeout=0)
    try:
        with lock:
            file.unlink()
    except Timeout:
        return True
    return False


def _used(folder: Path) -> SavedMemoryError:
    return SavedMemoryError(f"{folder} is used by another server: end that, or give another folder")
