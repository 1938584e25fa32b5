"""The files that outlive the server: documents, and memories of documents and conversations.

    DIR/documents/ID.json    a document
    DIR/documents/ID.names   names of the memories that contain the document, one a line
    DIR/memories/            a `DiskPrefixCache`
    DIR/lock, server-*.lock  locks of the servers that use the folder; see `FolderLock`
    DIR/writing.lock         lock of the server that changes a document

A document is committed when its file exists; its memory is written first. The name of a memory is
recorded before the memory is written, and memories are removed before their document is. So after a
crash the server finds every memory of a document that was deleted or never committed.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock

from inf_llm.atomic import write_atomically
from inf_llm.errors import InfLLMError, SavedMemoryError, reason
from inf_llm.generation import Session
from inf_llm.generation.disk_prefix_cache import DiskPrefixCache
from inf_llm.serve.documents import Document, changed
from inf_llm.serve.folder_lock import FolderLock

_log = logging.getLogger("inf_llm.serve")
_T = TypeVar("_T")
_NAME = re.compile(r"doc-[A-Za-z0-9_-]+")
_TEXTS = "documents"
_Version = tuple[int, int]
_NONE = 0, 0  # version of a file that does not exist


class Library:
    """The documents and memories in a folder; a separate thread writes the files.

    Args:
        folder: the folder DIR; created if it is absent.
        model: the model of the memories.
        tokenizer: the model's tokenizer.
        quota: most bytes of all memories; None for no limit.
        shared: whether several servers, all with `shared`, may use the folder at the same time.

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
        self._texts, self.shared = folder / _TEXTS, shared
        self._versions: dict[str, _Version] = {}
        self._change = FileLock(folder / "writing.lock", mode=0o600)
        try:
            self._texts.mkdir(0o700, parents=True, exist_ok=True)
            self._place = FolderLock(folder, shared)
            self.disk_cache = DiskPrefixCache(folder / "memories", model, tokenizer, quota, shared)
            if self._place.first:
                self.disk_cache.sweep()
                self._sweep()
            self._place.settle()
        except OSError as error:
            raise SavedMemoryError(f"{folder} cannot be used ({reason(error)})") from error
        self._thread = ThreadPoolExecutor(1, "library")
        self._writing: Future[Any] | None = None

    def documents(self) -> list[Document]:
        """Return the documents of earlier processes and of other servers, the oldest first."""
        documents = filter(None, map(self._read, self._texts.glob("doc-*.json")))
        return sorted(documents, key=lambda document: document.created)

    def names(self) -> list[str]:
        """Return the ids of all documents, the last changed one last."""
        return [file.stem for file in sorted(self._texts.glob("doc-*.json"), key=_version)]

    def current(self, name: str, held: Document | None) -> Document | None:
        """Return the current state of a document, which other servers may change.

        Args:
            name: the document's id.
            held: the document as this server holds it, which may not be on the disk; or None.

        Returns:
            The document; None if there is none.
        """
        if name not in self:
            return None if name in self._versions else held
        return held if held is not None and self._is_known(name) else self._read(self._file(name))

    def _is_known(self, name: str) -> bool:
        """Return whether the file is unchanged since this server last read or wrote it.

        A file that never existed counts as unchanged.
        """
        return _version(self._file(name)) == self._versions.get(name, _NONE)

    def _read(self, file: Path) -> Document | None:
        version = _version(file)
        document = _read(file)
        self._versions[file.stem] = version
        return document

    def _sweep(self) -> None:
        """Remove files that a killed server left, and memories of documents that do not exist."""
        for file in self._texts.glob(".doc-*"):
            file.unlink()
        lists = {file: _lines(file) for file in self._texts.glob("doc-*.names")}
        lost = {file for file in lists if not self._file(file.stem).exists()}
        needed = {name for file, names in lists.items() if file not in lost for name in names}
        for file in lost:
            for name in {*lists[file]} - needed:
                self.disk_cache.forget(name)
            file.unlink()

    async def keep(self, document: Document, memory: Session) -> None:
        """Save the memory of a document, if the quota has room for it, then the document.

        Raises:
            ApiError: another server has changed or removed the document since this server read it.
        """
        await self._do(lambda: self._keep(document, memory))

    def _keep(self, document: Document, memory: Session) -> None:
        self._note(document, memory)
        entry = self.disk_cache.put(memory)
        saved = replace(document, memory=None if entry is None else entry.name)
        with self._change:
            if not self._is_known(document.id):
                if document.id not in self:  # deleted: nothing may stay of it
                    self._remove(document.id)
                raise changed(document.id)
            write_atomically(self._file(document.id), json.dumps(asdict(saved)).encode(), True)
            self._versions[document.id] = _version(self._file(document.id))
        document.memory = saved.memory

    def _note(self, document: Document, memory: Session) -> None:
        """Record that a memory, which may not be written yet, contains a document."""
        file, name = self._names(document.id), self.disk_cache.name_of(memory)
        known = _lines(file)
        if name not in known:
            write_atomically(file, "\n".join([*known, name]).encode(), True)

    def keep_memory(self, memory: Session, documents: Iterable[Document]) -> None:
        """Save the memory of a conversation about documents, unless another save is in progress."""
        if self._writing is None or self._writing.done():
            self._writing = self._thread.submit(
                self._logged, lambda: self._keep_memory(memory, documents)
            )

    def _keep_memory(self, memory: Session, documents: Iterable[Document]) -> None:
        if all(self._file(each.id).exists() for each in documents):  # no document was deleted
            for each in documents:
                self._note(each, memory)
            self.disk_cache.put(memory)

    def __contains__(self, name: str) -> bool:
        """Return whether there is a document with an id, which may be any text of a client."""
        return is_committed(self._texts.parent, name)

    async def remove(self, name: str) -> bool:
        """Remove a document and all memories that contain it; return whether that succeeded."""
        return bool(await self._do(lambda: self._remove(name)))

    def _remove(self, name: str) -> bool:
        names = self._names(name)
        for each in _lines(names):
            self.disk_cache.forget(each)
        with self._change:
            self._file(name).unlink(missing_ok=True)
            names.unlink(missing_ok=True)
        return True

    def close(self) -> None:
        """Wait for pending writes and release the folder."""
        self._thread.shutdown()
        self._place.release()

    async def _do(self, work: Callable[[], _T]) -> _T | None:
        """Run `work` in the thread and return its result; None after an error, which is logged."""
        return await asyncio.wrap_future(self._thread.submit(self._logged, work))

    def _logged(self, work: Callable[[], _T]) -> _T | None:
        try:
            return work()
        except (InfLLMError, OSError) as error:
            _log.error("--memory-dir: %s", error)
            return None

    def _file(self, name: str) -> Path:
        return self._texts / f"{name}.json"

    def _names(self, name: str) -> Path:
        return self._texts / f"{name}.names"


def is_committed(folder: Path, name: str) -> bool:
    """Return whether a library's folder has a document with an id, which may be any text."""
    return is_document(name) and (folder / _TEXTS / f"{name}.json").exists()


def is_document(name: str) -> bool:
    """Return whether a name has the form of a document's id."""
    return _NAME.fullmatch(name) is not None


def _version(file: Path) -> _Version:
    """Return a value that changes when a file is replaced; values are in the order of time."""
    try:
        status = file.stat()
    except OSError:
        return _NONE
    return status.st_mtime_ns, status.st_ino


def _lines(file: Path) -> list[str]:
    """Return the lines of a file; empty if there is no file."""
    return file.read_text().split() if file.exists() else []


def _read(file: Path) -> Document | None:
    try:
        document = Document(**json.loads(file.read_bytes()))
    except (OSError, ValueError, TypeError) as error:
        _log.warning("%s is left alone: %s", file, error)
        return None
    return document if document.id == file.stem else None
