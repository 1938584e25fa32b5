"""Locks for a folder that one server uses alone, or that several servers share."""

from __future__ import annotations

import uuid
from pathlib import Path

from filelock import FileLock, Timeout

from inf_llm.errors import SavedMemoryError

STARTUP_SECONDS = 30.0
"""Most seconds to wait while another server that shares the folder starts."""


class FolderLock:
    """A server's use of a folder, until it is released or the process ends.

    A server without `shared` holds the lock of the folder all the time. Servers with `shared` hold
    one lock each, and hold the lock of the folder only while they start, so that the first server
    can clean the folder alone.

    Args:
        folder: an existing folder.
        shared: whether other servers with `shared` may use the folder at the same time.

    Attributes:
        first: whether no other server uses the folder.

    Raises:
        SavedMemoryError: another server uses the folder, and one of the two does not share it.
    """

    def __init__(self, folder: Path, shared: bool) -> None:
        self._startup = FileLock(
            folder / "lock", timeout=STARTUP_SECONDS if shared else 0, mode=0o600
        )
        self._place = FileLock(folder / f"server-{uuid.uuid4().hex}.lock", timeout=0, mode=0o600)
        try:
            self._startup.acquire()
        except Timeout:
            raise _used(folder) from None
        self.first = not [file for file in folder.glob("server-*.lock") if _held(file)]
        if shared:
            self._place.acquire()
        elif not self.first:
            self._startup.release()
            raise _used(folder)

    def settle(self) -> None:
        """End the start: let other servers that share the folder start."""
        if self._place.is_locked:
            self._startup.release()

    def release(self) -> None:
        """Release all locks of this server."""
        self._place.release()
        self._startup.release()


def _held(file: Path) -> bool:
    """Return whether a running server holds a lock; remove the lock file of an ended server."""
    lock = FileLock(file, timeout=0)
    try:
        with lock:
            file.unlink()
    except Timeout:
        return True
    return False


def _used(folder: Path) -> SavedMemoryError:
    return SavedMemoryError(f"{folder} is used by another server: end that, or give another folder")
