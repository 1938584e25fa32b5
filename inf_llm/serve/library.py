"""What outlives the server: uploaded texts, and memories of them and of conversations.

    DIR/documents/ID.json    a text
    DIR/documents/ID.names   of the memories that have it, one a line
    DIR/memories/            a `PrefixShelf`
    DIR/lock, server-*.lock  of the servers that use the folder; see `Occupancy`
    DIR/writing.lock         of the one that changes a text

A text is committed once its file is there, which is after its memory. A memory's name is noted
before it is written, and memories go before their text does, so that those of a text that was
deleted or never committed are found after a crash too.
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
from inf_llm.generation.prefix_shelf import PrefixShelf
from inf_llm.serve.documents import Document, changed
from inf_llm.serve.occupancy import Occupancy

_log = logging.getLogger("inf_llm.serve")
_T = TypeVar("_T")
_NAME = re.compile(r"doc-[A-Za-z0-9_-]+")
_TEXTS = "documents"
_Version = tuple[int, int]
_NONE = 0, 0  # of a file that is not there


class Library:
    """See the module's text. Files are written by a thread of its own, one after another.

    Args:
        folder: DIR; made if it is absent.
        model: the model that reads.
        tokenizer: the model's.
        quota: most bytes of memories; None for no limit.
        shared: whether other servers, which share it too, use the folder at the same time.

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
            self._place = Occupancy(folder, shared)
            self.shelf = PrefixShelf(folder / "memories", model, tokenizer, quota, shared)
            if self._place.first:
                self.shelf.sweep()
                self._sweep()
            self._place.settle()
        except OSError as error:
            raise SavedMemoryError(f"{folder} cannot be used ({reason(error)})") from error
        self._thread = ThreadPoolExecutor(1, "library")
        self._writing: Future[Any] | None = None

    def documents(self) -> list[Document]:
        """The texts of earlier processes, and of other servers, the oldest first."""
        found = filter(None, map(self._read, self._texts.glob("doc-*.json")))
        return sorted(found, key=lambda document: document.created)

    def names(self) -> list[str]:
        """Ids of all texts; the one that changed last comes last."""
        return [file.stem for file in sorted(self._texts.glob("doc-*.json"), key=_version)]

    def current(self, name: str, held: Document | None) -> Document | None:
        """A text as it is now, for other servers may have changed it; None where there is none.

        Args:
            name: its id.
            held: the text that this server holds, which may never have been written.
        """
        if name not in self:
            return None if name in self._versions else held
        return held if held is not None and self._is_known(name) else self._read(self._file(name))

    def _is_known(self, name: str) -> bool:
        """Whether a text is on the disk as this server read or wrote it last, or was never."""
        return _version(self._file(name)) == self._versions.get(name, _NONE)

    def _read(self, file: Path) -> Document | None:
        version = _version(file)
        document = _read(file)
        self._versions[file.stem] = version
        return document

    def _sweep(self) -> None:
        """Remove what a server that was killed left of texts that are not there."""
        for file in self._texts.glob(".doc-*"):
            file.unlink()
        lists = {file: _lines(file) for file in self._texts.glob("doc-*.names")}
        lost = {file for file in lists if not self._file(file.stem).exists()}
        needed = {name for file, names in lists.items() if file not in lost for name in names}
        for file in lost:
            for name in {*lists[file]} - needed:
                self.shelf.forget(name)
            file.unlink()

    async def keep(self, document: Document, memory: Session) -> None:
        """Commit a text, its memory first, if the disk has room for that.

        Raises:
            ApiError: another server has changed it, or removed it, since this one has read it.
        """
        await self._do(lambda: self._keep(document, memory))

    def _keep(self, document: Document, memory: Session) -> None:
        self._note(document, memory)
        shelved = self.shelf.put(memory)
        saved = replace(document, memory=None if shelved is None else shelved.name)
        with self._change:
            if not self._is_known(document.id):
                raise changed(document.id)
            write_atomically(self._file(document.id), json.dumps(asdict(saved)).encode(), True)
            self._versions[document.id] = _version(self._file(document.id))
        document.memory = saved.memory

    def _note(self, document: Document, memory: Session) -> None:
        """Note that a memory, which may not be there yet, has a text."""
        file, name = self._names(document.id), self.shelf.name_of(memory)
        known = _lines(file)
        if name not in known:
            write_atomically(file, "\n".join([*known, name]).encode(), True)

    def keep_memory(self, memory: Session, documents: Iterable[Document]) -> None:
        """Keep the beginning of a conversation about texts, unless another is being written."""
        if self._writing is None or self._writing.done():
            self._writing = self._thread.submit(
                self._logged, lambda: self._keep_memory(memory, documents)
            )

    def _keep_memory(self, memory: Session, documents: Iterable[Document]) -> None:
        if all(self._file(each.id).exists() for each in documents):  # else one is deleted
            for each in documents:
                self._note(each, memory)
            self.shelf.put(memory)

    def __contains__(self, name: str) -> bool:
        """Whether there is a text of an id, which comes from a client."""
        return is_committed(self._texts.parent, name)

    async def remove(self, name: str) -> bool:
        """Remove the text of an id, and all memories that have it; whether the disk let that be."""
        return bool(await self._do(lambda: self._remove(name)))

    def _remove(self, name: str) -> bool:
        names = self._names(name)
        for each in _lines(names):
            self.shelf.forget(each)
        with self._change:
            self._file(name).unlink(missing_ok=True)
            names.unlink(missing_ok=True)
        return True

    def close(self) -> None:
        """Wait for what is being written, and leave the folder to others."""
        self._thread.shutdown()
        self._place.release()

    async def _do(self, work: Callable[[], _T]) -> _T | None:
        """The result of what the thread does; None where a disk did not let it."""
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
    """Whether a folder of servers has a text of an id, which comes from a client."""
    return is_document(name) and (folder / _TEXTS / f"{name}.json").exists()


def is_document(name: str) -> bool:
    """Whether a name may be a document's id."""
    return _NAME.fullmatch(name) is not None


def _version(file: Path) -> _Version:
    """What is another one once a file is replaced, in the order of time."""
    try:
        found = file.stat()
    except OSError:
        return _NONE
    return found.st_mtime_ns, found.st_ino


def _lines(file: Path) -> list[str]:
    """The lines of a file; none where it is not there."""
    return file.read_text().split() if file.exists() else []


def _read(file: Path) -> Document | None:
    try:
        document = Document(**json.loads(file.read_bytes()))
    except (OSError, ValueError, TypeError) as error:
        _log.warning("%s is left alone: %s", file, error)
        return None
    return document if document.id == file.stem else None
