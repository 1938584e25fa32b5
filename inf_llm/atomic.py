"""Files that are written whole or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path


def write_atomically(path: Path, content: bytes, private: bool = False) -> None:
    """Replace the content of a file: a reader finds the old or the new content, never a part.

    Args:
        path: the file.
        content: the whole new content.
        private: give only the owner access to the file, on systems with file permissions.

    Raises:
        OSError: the file cannot be written. The old file is unchanged, and no temporary file
            remains. Only if the folder's entry cannot be synced, the new file is there already.
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
    """Wait until the entries of a folder are on the disk; do nothing on non-POSIX systems."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some file systems do not sync folders
            raise
    finally:
        os.close(handle)
