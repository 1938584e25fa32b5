"""Saved sessions on a disk, looked up by the tokens that they have read.

Each session has its own folder below one common folder, as `Session.save` writes it. Sessions of
another model, or with other settings, are ignored. The least recently used session is evicted
first.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shutil
import threading
from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inf_llm.errors import SavedMemoryError
from inf_llm.generation.session import Session
from inf_llm.hf.identity import model_identity, tokenizer_identity
from inf_llm.hf.saving import check_identity, saved_tokens
from inf_llm.saved.folder import remove
from inf_llm.saved.manifest import NAME, read_manifest

_log = logging.getLogger(__name__)
_FOLDER = re.compile(r"[0-9]+-[0-9a-f]{32}")


@dataclass(frozen=True)
class DiskEntry:
    """A session on the disk.

    Attributes:
        key: the tokens that the session has read.
        folder: folder of the session.
        bytes: size of its files.
    """

    key: array[int]
    folder: Path
    bytes: int

    @property
    def name(self) -> str:
        """Name of the session on the disk_cache: the name of its folder."""
        return self.folder.name


class DiskPrefixCache:
    """The saved sessions below a folder; thread-safe.

    Args:
        folder: the folder, created if it does not exist.
        model: the model of the sessions.
        tokenizer: the tokenizer of the model.
        quota: most bytes of all sessions together; None for no limit.
        shared: whether other processes add and remove sessions at the same time.

    Raises:
        SavedMemoryError: the folder cannot be used.
    """

    def __init__(
        self,
        folder: Path,
        model: Any,
        tokenizer: Any,
        quota: int | None = None,
        shared: bool = False,
    ) -> None:
        self._folder, self._model, self._tokenizer = folder, model, tokenizer
        self.quota, self._shared = quota, shared
        self._identity = model_identity(model) | tokenizer_identity(tokenizer)
        self._lock = threading.Lock()
        self._held: list[DiskEntry] = []  # the least recently used session first
        self._seen: set[str] = set()
        try:
            folder.mkdir(0o700, parents=True, exist_ok=True)
            self._find()
        except OSError as error:
            raise SavedMemoryError(
                f"{folder} cannot hold memories ({error.strerror}): give one that may be written"
            ) from error

    def sweep(self) -> None:
        """Remove uncommitted sessions; call it only while no other process writes sessions."""
        for folder in self._folder.iterdir():
            if _FOLDER.fullmatch(folder.name) and not (folder / NAME).exists():
                shutil.rmtree(folder, ignore_errors=True)

    def _find(self) -> None:
        """Add sessions that earlier or other processes committed; drop those that they removed."""
        with self._lock:
            there = {each.name: each for each in self._folder.iterdir() if _is_session(each)}
            self._held = [each for each in self._held if each.name in there]
            new = there.keys() - self._seen - {each.name for each in self._held}
            folders = sorted((there[name] for name in new), key=_last_use)
            self._held += filter(None, map(self._read, folders))
            self._seen = set(there)

    def _read(self, folder: Path) -> DiskEntry | None:
        """Return the entry of a session folder; None if it is damaged or of another model."""
        try:
            manifest = read_manifest(folder)
            check_identity(folder, manifest, self._identity)
            tokens = saved_tokens(folder, manifest)
        except SavedMemoryError as error:
            _log.warning("%s is left alone: %s", folder, error)
            return None
        return DiskEntry(array("q", tokens.tolist()), folder, manifest.nbytes)

    def _look_again(self) -> None:
        if self._shared:
            self._find()

    def __len__(self) -> int:
        return len(self._held)

    @property
    def bytes(self) -> int:
        """Bytes of all sessions on the disk_cache."""
        with self._lock:
            return sum(each.bytes for each in self._held)

    def best(self, key: array[int]) -> DiskEntry | None:
        """Return the session with the longest prefix of a prompt; None if there is none.

        The prefix leaves at least one token of the prompt.
        """
        self._look_again()
        with self._lock:
            fits = [
                each
                for each in self._held
                if len(each.key) < len(key) and key[: len(each.key)] == each.key
            ]
        return max(fits, key=lambda each: len(each.key), default=None)

    def load(self, entry: DiskEntry, chunk_size: int = 8192) -> Session | None:
        """Load a session; if its files are missing or damaged, drop it and return None."""
        try:
            session = Session.load(entry.folder, self._model, self._tokenizer, chunk_size)
            os.utime(entry.folder)
        except (SavedMemoryError, OSError) as error:
            _log.warning("a memory is read again: %s", error)
            self.drop(entry)
            return None
        with self._lock:
            if entry in self._held:
                self._held.remove(entry)
                self._held.append(entry)
        return session

    def put(self, session: Session) -> DiskEntry | None:
        """Save a session whose tokens have all been fed.

        Other threads may use forks of the session at the same time.

        Returns:
            The entry on the disk; None if the quota is too small for the session.

        Raises:
            SavedMemoryError: the session cannot be written. Sessions saved before are unchanged.
        """
        self._look_again()
        key = array("q", session.ids)
        known = next((each for each in self._held if each.key == key), None)
        if known is not None:
            return known
        if self.quota is not None and _sealed_bytes(session) > self.quota:
            return None
        folder = self._folder / self.name_of(session)
        try:
            session.save(folder, overwrite=True)
        except SavedMemoryError:
            if not (folder / NAME).exists():
                shutil.rmtree(folder, ignore_errors=True)
            raise
        entry = DiskEntry(key, folder, read_manifest(folder).nbytes)
        with self._lock:
            if entry not in self._held:
                self._held.append(entry)
        self._trim()
        return entry if entry in self._held else None

    @staticmethod
    def name_of(session: Session) -> str:
        """Return the name that a session has, or would have, on the disk_cache."""
        digest = hashlib.sha256(array("q", session.ids).tobytes()).hexdigest()[:32]
        return f"{len(session.ids)}-{digest}"

    def drop(self, entry: DiskEntry) -> None:
        """Remove a session from the disk, or log why it cannot be removed.

        Sessions that were loaded from it, in this or another process, stay valid.
        """
        try:
            self._remove(entry)
        except (SavedMemoryError, OSError) as error:
            _log.warning("%s stays on the disk: %s", entry.folder, error)

    def _remove(self, entry: DiskEntry) -> None:
        with self._lock:
            if entry not in self._held:
                return
            self._held.remove(entry)
        remove(entry.folder)

    def forget(self, name: str) -> None:
        """Remove a session by its name, and all sessions that continue its tokens.

        The name may belong to a session of another model, or with other settings.

        Raises:
            SavedMemoryError, OSError: a session cannot be removed from the disk.
        """
        first = next((each for each in self._held if each.name == name), None)
        key = None if first is None else first.key
        for each in self._held[:]:
            if key is not None and each.key[: len(key)] == key:
                self._remove(each)
        folder = self._folder / name
        if _FOLDER.fullmatch(name) and (folder / NAME).exists():
            remove(folder)

    def _trim(self) -> None:
        while self.quota is not None and self._held and self.bytes > self.quota:
            large = [each for each in self._held if each.bytes > self.quota]
            self.drop((large or self._held)[0])


def _sealed_bytes(session: Session) -> int:
    """Return the bytes of a session in host memory and on disk, a lower bound of its files."""
    held = session.stats()
    return held.host_bytes + held.disk_bytes


def _is_session(folder: Path) -> bool:
    return _FOLDER.fullmatch(folder.name) is not None and (folder / NAME).exists()


def _last_use(folder: Path) -> float:
    return folder.stat().st_mtime
