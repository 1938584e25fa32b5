"""Uploaded texts, under names that cannot be guessed, bounded in number and size."""

from __future__ import annotations

import secrets
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

from inf_llm.generation import check_document
from inf_llm.serve.errors import ApiError
from inf_llm.serve.params import checked_text, flag
from inf_llm.serve.vendors import check_names

MOST_DOCUMENTS = 256
LONGEST_NAME = 200


@dataclass
class Document:
    """A text to ask about.

    Attributes:
        text: as it came.
        name: what the client calls it.
        id: what requests call it.
        created: seconds since 1970.
        tokens: how many, once it is read.
        cut: how many more there were, which `truncation` left out.
        bytes: of the memory that it takes; None where that is not known.
        kept_tokens: how many were kept in memory when it was read.
    """

    text: str
    name: str
    id: str = field(default_factory=lambda: "doc-" + secrets.token_urlsafe(18))
    created: int = field(default_factory=lambda: int(time.time()))
    tokens: int = 0
    cut: int = 0
    bytes: int | None = None
    kept_tokens: int = 0

    @property
    def core(self) -> str:
        """The text without the white space around it, as a prompt has it."""
        return self.text.strip()

    @property
    def lead(self) -> int:
        """Characters of white space before the core."""
        return len(self.text) - len(self.text.lstrip())

    def described(self) -> dict[str, Any]:
        """The form of the API."""
        return {
            "id": self.id,
            "object": "document",
            "created": self.created,
            "name": self.name,
            "characters": len(self.text),
            "tokens": self.tokens,
            "cut_tokens": self.cut,
            "bytes": self.bytes,
            "kept": bool(self.kept_tokens),
            "kept_tokens": self.kept_tokens,
        }


class Documents:
    """The texts held; those used least recently leave first.

    Args:
        characters: most characters held together.
    """

    def __init__(self, characters: int) -> None:
        self._room = characters
        self._held: OrderedDict[str, Document] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._held)

    def add(self, document: Document) -> None:
        """Hold a text."""
        with self._lock:
            self._held[document.id] = document
            while len(self._held) > 1 and self._too_much():
                self._held.popitem(last=False)

    def _too_much(self) -> bool:
        total = sum(len(document.text) for document in self._held.values())
        return len(self._held) > MOST_DOCUMENTS or total > self._room

    def get(self, name: str) -> Document:
        """The text of an id.

        Raises:
            ApiError: there is none.
        """
        with self._lock:
            if name not in self._held:
                raise ApiError(
                    404,
                    f"there is no document {name[:60]!r}: it was never uploaded, or has left to "
                    "make room: upload it again",
                    "document_not_found",
                    "document",
                )
            self._held.move_to_end(name)
            return self._held[name]

    def remove(self, name: str) -> None:
        """Forget a text."""
        self.get(name)
        with self._lock:
            self._held.pop(name, None)


def uploaded(data: dict[str, Any]) -> tuple[Document, bool]:
    """The body of a request to /v1/documents: the text, and whether to stream progress.

    Raises:
        ApiError: something in it is not accepted.
    """
    check_names(data, ("text", "name", "stream"))
    text = checked_text("text", data.get("text"), check_document)
    name = data.get("name")
    name = "" if name is None else checked_text("name", name)
    return Document(text, name[:LONGEST_NAME]), flag(data, "stream")
