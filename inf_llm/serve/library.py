"""What outlives the server: uploaded texts, and memories of them and of conversations.

    DIR/documents/ID.json    a text
    DIR/memories/            a `PrefixShelf`

A text is committed once its file is there, which is after its memory.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

from inf_llm.atomic import write_atomically
from inf_llm.errors import InfLLMError, SavedMemoryError, reason
from inf_llm.generation import Session
from inf_llm.generation.prefix_shelf import PrefixShelf
from inf_llm.serve.documents import Document

_log = logging.getLogger("inf_llm.serve")
_T = TypeVar("_T")


class Library:
    """See the module's text. Files are written by a thread of its own, one after another.

    Args:
        folder: DIR; made if it is absent.
        model: the model that reads.
        tokenizer: the model's.
        quota: most bytes of memories; None for no limit.

    Raises:
        SavedMemoryError: the folder cannot be used.
    """

    def __init__(self, folder: Path, model: Any, tokenizer: Any, quota: int | None = None) -> None:
        self.shelf = PrefixShelf(folder / "memories", model, tokenizer, quota)
        self._texts = folder / "documents"
        try:
            self._texts.mkdir(0o700, exist_ok=True)
        except OSError as error:
            raise SavedMemoryError(f"{self._texts} cannot be made ({reason(error)})") from error
        self._thread = ThreadPoolExecutor(1, "library")
        self._writing: Future[Any] | None = None

    def documents(self) -> list[Document]:
        """The texts of earlier processes, the oldest first."""
        found = filter(None, map(_read, self._texts.glob("doc-*.json")))
        return sorted(found, key=lambda document: document.created)

    async def keep(self, document: Document, memory: Session) -> None:
        """Commit a text, its memory first, if the disk has room for that."""
        await self._do(lambda: self._keep(document, memory))

    def _keep(self, document: Document, memory: Session) -> None:
        shelved = self.shelf.put(memory)
        saved = replace(document, memory=None if shelved is None else shelved.name)
        write_atomically(self._file(document.id), json.dumps(asdict(saved)).encode(), True)
        document.memory = saved.memory

    def keep_memory(self, memory: Session) -> None:
        """Keep the beginning of a conversation, unless another one is being written."""
        if self._writing is None or self._writing.done():
            self._writing = self._thread.submit(self._logged, lambda: self.shelf.put(memory))

    async def remove(self, document: Document) -> None:
        """Remove a text, and all memories that begin with it."""
        await self._do(lambda: self._remove(document))

    def _remove(self, document: Document) -> None:
        self._file(document.id).unlink(missing_ok=True)
        if document.memory is not None:
            self.shelf.forget(document.memory)

    def close(self) -> None:
        """Wait for what is being written."""
        self._thread.shutdown()

    async def _do(self, work: Callable[[], _T]) -> _T | None:
        """The result of what the thread does; None where a disk did not let it."""
        return await asyncio.wrap_future(self._thread.submit(self._logged, work))

    def _logged(self, work: Callable[[], _T]) -> _T | None:
        try:
            return work()
        except (InfLLMError, OSError) as error:
            _log.error("not kept on the disk: %s", error)
            return None

    def _file(self, name: str) -> Path:
        return self._texts / f"{name}.json"


def _read(file: Path) -> Document | None:
    try:
        document = Document(**json.loads(file.read_bytes()))
    except (OSError, ValueError, TypeError) as error:
        _log.warning("%s is left alone: %s", file, error)
        return None
    return document if document.id == file.stem else None
