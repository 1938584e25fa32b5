"""Reading and writing a folder: one writer at a time, any number of readers, atomic commits.

A writer adds segments under unused names, syncs each segment to the disk, and then replaces the
manifest. Segments that the manifest does not name come from a writer that was killed; the next
process with write access removes them. The content of a folder is therefore always that of its last
commit.
"""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from filelock import FileLock, Timeout

from inf_llm.atomic import sync_folder
from inf_llm.errors import SavedMemoryError, reason
from inf_llm.saved.digest import digesting
from inf_llm.saved.manifest import NAME, SEGMENT_NAME, Manifest, Segment, read_manifest
from inf_llm.saved.seal import broken_seal
from inf_llm.saved.segment import Rows, map_segment, write_segment

LOCK = "lock"
_OURS = re.compile(rf"{SEGMENT_NAME.pattern}(\.part)?|\.{re.escape(NAME)}\.[0-9]+")
_TRIES = 5
_PATIENCE = 0.2  # seconds to wait for the lock: a reader's sweep holds it for less
_T = TypeVar("_T")


class Writer:
    """One write to a folder; created by `writing`.

    Attributes:
        path: path of the folder.
        before: manifest of the folder before the write; None if it has none.
        committed: the committed manifest; None until `commit`.
    """

    def __init__(self, path: Path, before: Manifest | None) -> None:
        self.path = path
        self.before = before
        self.id = uuid.uuid4().hex if before is None else before.id
        self.generation = 1 if before is None else before.generation + 1
        self.committed: Manifest | None = None

    def start_anew(self) -> None:
        """Set another id, so that the commit replaces the folder's memory by a different memory."""
        self.id = uuid.uuid4().hex

    def add(self, kind: str, tensors: Mapping[str, Rows]) -> Segment:
        """Write a segment and wait until it is on the disk; `commit` makes it part of the folder.

        Raises:
            OSError: the segment cannot be written, for example because the disk is full.
        """
        name = f"{kind}-{self.generation:06d}.safetensors"
        part = self.path / f"{name}.part"
        size, digest = write_segment(part, tensors)
        part.replace(self.path / name)
        return Segment(name, size, digest)

    def commit(self, manifest: Manifest) -> None:
        """Replace the folder's manifest; `writing` removes unnamed segments when it ends."""
        sync_folder(self.path)
        manifest.write(self.path)
        self.committed = manifest


@contextmanager
def claimed(path: Path) -> Iterator[Manifest | None]:
    """Lock a folder for a process that reads a text for a long time before it writes.

    Yields:
        The manifest of the folder, or None if it has none.

    Raises:
        SavedMemoryError: another process has locked the folder, the folder has other files, or it
            cannot be created.
    """
    check_folder(path)
    try:
        _make_folder(path, 0o700)
    except OSError as error:
        raise SavedMemoryError(f"{path} cannot be made ({reason(error)})") from error
    with _lock(path, _PATIENCE):
        yield check_folder(path)


@contextmanager
def writing(path: Path) -> Iterator[Writer]:
    """Lock a folder for one writer; remove uncommitted segments at the end.

    Raises:
        SavedMemoryError: another process is writing, or the folder has other files.
        OSError: the folder cannot be created or written.
    """
    check_folder(path)  # before the lock file exists, to leave a folder of other files as it is
    _make_folder(path, 0o700)
    with _lock(path, _PATIENCE):
        writer = Writer(path, check_folder(path))
        _sweep(path, writer.before)
        try:
            yield writer
        finally:
            with suppress(OSError, SavedMemoryError):  # the next process with write access sweeps
                if writer.committed is None:
                    _take_back(path, writer.before)
                _sweep(path, writer.committed or writer.before)


def _make_folder(path: Path, mode: int = 0o777) -> None:
    """Create a folder and its parents, and wait until their names are on the disk."""
    if not path.is_dir():
        if not path.parent.exists():
            _make_folder(path.parent)
        path.mkdir(mode, exist_ok=True)
        sync_folder(path.parent)


def _has_words(file: Path) -> bool:
    """Return whether the file is named `lock` and belongs to another program: ours is empty."""
    return file.name == LOCK and file.stat().st_size > 0


def _take_back(path: Path, before: Manifest | None) -> None:
    """Undo a commit that failed after the manifest was replaced."""
    if before is None:
        (path / NAME).unlink(missing_ok=True)
    elif read_manifest(path) != before:
        before.write(path)


def check_folder(path: Path) -> Manifest | None:
    """Check that a memory can be saved to a folder; return its manifest, or None if it has none.

    Raises:
        SavedMemoryError: the path is not a folder, the folder cannot be written, it has other
            files, or its manifest is damaged.
    """
    _check_place(path)
    if not path.exists():
        return None
    if (path / NAME).exists():
        return read_manifest(path)
    foreign = [file.name for file in path.iterdir() if not _is_ours(file.name) or _has_words(file)]
    if foreign:
        raise SavedMemoryError(
            f"{path} holds no memory, but other files ({min(foreign)!r}): give a folder of its own"
        )
    return None


def _check_place(path: Path) -> None:
    """Check, as far as possible, that a folder can be written, or created in its parents."""
    if path.is_symlink() and not path.exists():
        raise SavedMemoryError(f"{path} is a link to {path.readlink()}, which is not there")
    above = next(each for each in (path, *path.absolute().parents) if each.exists())
    if not above.is_dir():
        raise SavedMemoryError(f"{above} is a file: give a folder")
    if not os.access(above, os.W_OK | os.X_OK):
        raise SavedMemoryError(f"{above} may not be written: give another folder")


def reading(path: Path, read: Callable[[Manifest], _T]) -> _T:
    """Read the folder's manifest and return the result of `read` for it.

    A writer may remove segments in between; then the manifest is read again. Files that a killed
    writer has left are removed first, if this process has write access.

    Raises:
        SavedMemoryError: the folder holds no memory, or is damaged.
    """
    sweep(path)
    for _ in range(_TRIES):
        manifest = read_manifest(path)
        try:
            return read(manifest)
        except FileNotFoundError as error:
            if read_manifest(path) == manifest:
                missing = f"{error.filename} is missing, so the memory is damaged"
                raise SavedMemoryError(missing) from None
        except OSError as error:
            raise SavedMemoryError(f"{path} cannot be read ({reason(error)})") from error
    raise SavedMemoryError(f"{path} is written all the time: try again")


def sweep(path: Path) -> None:
    """Remove files of a killed writer, unless another process is writing or access is denied."""
    with suppress(SavedMemoryError, OSError):
        if any(_left_over(path, read_manifest(path))):
            with _lock(path):
                _sweep(path, read_manifest(path))


def verify(path: Path) -> list[str]:
    """Check all files of a folder; return one line of text for each damage.

    Raises:
        SavedMemoryError: the folder holds no memory, its manifest is damaged, or a file is missing.
    """

    def read(manifest: Manifest) -> list[str]:
        with ThreadPoolExecutor() as threads:
            digests = [(each, digesting(path / each.file, threads)) for each in manifest.segments]
            damages = [_damage(path, each) for each, digest in digests if digest() != each.sha256]
        (state,) = manifest.of_kind("state")
        if not any(state.file in damage for damage in damages):
            tensors = map_segment(path / state.file, state.bytes)
            damages += filter(None, [broken_seal(path, manifest, tensors)])
        return damages

    return reading(path, read)


def remove(path: Path) -> None:
    """Remove a memory, and its folder unless the folder has other files.

    Raises:
        SavedMemoryError: the folder holds no memory, or another process is writing it.
        OSError: a file cannot be removed.
    """
    if not path.is_dir() or not any(_OURS.fullmatch(file.name) for file in path.iterdir()):
        read_manifest(path)  # other programs have files of that name too
    with _lock(path, _PATIENCE):
        (path / NAME).unlink(missing_ok=True)  # first, so that the rest is never read as a memory
        _sweep(path, None)
    (path / LOCK).unlink(missing_ok=True)
    if not any(path.iterdir()):
        path.rmdir()


@contextmanager
def _lock(path: Path, patience: float = 0) -> Iterator[None]:
    lock = FileLock(path / LOCK, mode=0o600, is_singleton=True)  # a thread may acquire it twice
    try:
        lock.acquire(timeout=patience)
    except Timeout:
        raise SavedMemoryError(
            f"{path} is being written by another process: wait for it, or save elsewhere"
        ) from None
    try:
        yield
    finally:
        lock.release()


def _is_ours(name: str) -> bool:
    return name in (NAME, LOCK) or _OURS.fullmatch(name) is not None


def _sweep(path: Path, manifest: Manifest | None) -> None:
    """Remove segments and temporary files that the manifest does not name."""
    for file in _left_over(path, manifest):
        file.unlink(missing_ok=True)


def _left_over(path: Path, manifest: Manifest | None) -> list[Path]:
    named = () if manifest is None else {each.file for each in manifest.segments}
    return [
        file for file in path.iterdir() if _OURS.fullmatch(file.name) and file.name not in named
    ]


@contextmanager
def checked(path: Path, segments: Iterable[Segment]) -> Iterator[None]:
    """Compare segments with the manifest's digests, in other threads, while the caller uses them.

    Raises:
        SavedMemoryError: a segment differs; this replaces any error of the caller.
    """
    with ThreadPoolExecutor() as threads:
        digests = [(each, digesting(path / each.file, threads)) for each in segments]
        try:
            yield
        finally:
            for each, digest in digests:
                if digest() != each.sha256:
                    raise SavedMemoryError(_damage(path, each))


def _damage(path: Path, segment: Segment) -> str:
    return f"{path / segment.file} is damaged: its bytes do not have the manifest's SHA-256"
