"""Files that are written whole or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path


def write_atomically(path: Path, content: bytes, private: bool = False) -> None:
    """Replace what a file holds: a reader finds the old content or the new, never half of it.

    Args:
        path: the file.
        content: all of it.
        private: for its owner's eyes only, on systems that know owners.

    Raises:
        OSError: it cannot be written; the old file is as it was, and nothing is left beside it.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        mode = 0o600 if private else 0o666
        with open(beside, "wb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Return when the names in a folder are on the disk, where a system can say so."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system that has nothing to sync in a folder
            raise
    finally:
        os.close(handle)
