"""Sessions on a disk, found by the tokens they have read.

Under one folder every session has a folder of its own, as `Session.save` writes it. Those of
another model, or with other settings, are left alone. Those used least recently leave first.
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
class Shelved:
    """A session on the disk.

    Attributes:
        key: the tokens that it has read.
        folder: where it is.
        bytes: of its files.
    """

    key: array[int]
    folder: Path
    bytes: int

    @property
    def name(self) -> str:
        """Of it among those on the shelf."""
        return self.folder.name


class PrefixShelf:
    """The sessions under a folder; for any number of threads.

    Args:
        folder: where; it is made if it is absent.
        model: the model that reads.
        tokenizer: the model's.
        quota: most bytes of all that is kept; None for no limit.
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
        self._held: list[Shelved] = []  # that used least recently first
        self._seen: set[str] = set()
        try:
            folder.mkdir(0o700, parents=True, exist_ok=True)
            self._find()
        except OSError as error:
            raise SavedMemoryError(
                f"{folder} cannot hold memories ({error.strerror}): give one that may be written"
            ) from error

    def sweep(self) -> None:
        """Remove sessions that were not committed, while no other process writes any."""
        for folder in self._folder.iterdir():
            if _FOLDER.fullmatch(folder.name) and not (folder / NAME).exists():
                shutil.rmtree(folder, ignore_errors=True)

    def _find(self) -> None:
        """Hold what earlier and other processes committed, and no more what they removed."""
        with self._lock:
            there = {each.name: each for each in self._folder.iterdir() if _is_session(each)}
            self._held = [each for each in self._held if each.name in there]
            new = there.keys() - self._seen - {each.name for each in self._held}
            folders = sorted((there[name] for name in new), key=_last_use)
            self._held += filter(None, map(self._read, folders))
            self._seen = set(there)

    def _read(self, folder: Path) -> Shelved | None:
        """A session that is not held yet; None where it is another model's, or damaged."""
        try:
            manifest = read_manifest(folder)
            check_identity(folder, manifest, self._identity)
            tokens = saved_tokens(folder, manifest)
        except SavedMemoryError as error:
            _log.warning("%s is left alone: %s", folder, error)
            return None
        return Shelved(array("q", tokens.tolist()), folder, manifest.nbytes)

    def _look_again(self) -> None:
        if self._shared:
            self._find()

    def __len__(self) -> int:
        return len(self._held)

    @property
    def bytes(self) -> int:
        """Of all that is kept."""
        with self._lock:
            return sum(each.bytes for each in self._held)

    def best(self, key: array[int]) -> Shelved | None:
        """The session that has read the longest beginning of a prompt, one token less at most."""
        self._look_again()
        with self._lock:
            fits = [
                each
                for each in self._held
                if len(each.key) < len(key) and key[: len(each.key)] == each.key
            ]
        return max(fits, key=lambda each: len(each.key), default=None)

    def load(self, shelved: Shelved, chunk_size: int = 8192) -> Session | None:
        """The session; None where it is there no more, or damaged: then it is let go."""
        try:
            session = Session.load(shelved.folder, self._model, self._tokenizer, chunk_size)
            os.utime(shelved.folder)
        except (SavedMemoryError, OSError) as error:
            _log.warning("a memory is read again: %s", error)
            self.drop(shelved)
            return None
        with self._lock:
            if shelved in self._held:
                self._held.remove(shelved)
                self._held.append(shelved)
        return session

    def put(self, session: Session) -> Shelved | None:
        """Keep a session that waits for no token to be fed.

        Other threads may go on from what it shares with others.

        Returns:
            What is on the disk now; None where that has no room.

        Raises:
            SavedMemoryError: it cannot be written. What was kept before is as it was.
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
        shelved = Shelved(key, folder, read_manifest(folder).nbytes)
        with self._lock:
            if shelved not in self._held:
                self._held.append(shelved)
        self._trim()
        return shelved if shelved in self._held else None

    @staticmethod
    def name_of(session: Session) -> str:
        """The name that a session has, or would have, on the shelf."""
        digest = hashlib.sha256(array("q", session.ids).tobytes()).hexdigest()[:32]
        return f"{len(session.ids)}-{digest}"

    def drop(self, shelved: Shelved) -> None:
        """Let a session go. Processes and sessions that have opened it may go on."""
        try:
            self._remove(shelved)
        except (SavedMemoryError, OSError) as error:
            _log.warning("%s stays on the disk: %s", shelved.folder, error)

    def _remove(self, shelved: Shelved) -> None:
        with self._lock:
            if shelved not in self._held:
                return
            self._held.remove(shelved)
        remove(shelved.folder)

    def forget(self, name: str) -> None:
        """Let a session go by its name, with all that have read on from it.

        It may be one of another model, or with other settings.

        Raises:
            SavedMemoryError, OSError: it stays on the disk.
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
    """Bytes of what a session has off the device; its files have more."""
    held = session.stats()
    return held.host_bytes + held.disk_bytes


def _is_session(folder: Path) -> bool:
    return _FOLDER.fullmatch(folder.name) is not None and (folder / NAME).exists()


def _last_use(folder: Path) -> float:
    return folder.stat().st_mtime
