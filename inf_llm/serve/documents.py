"""Uploaded texts, under names that cannot be guessed, bounded in number and size."""

from __future__ import annotations

import base64
import secrets
import threading
import time
from collections import OrderedDict, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import Any

from inf_llm.conversation import BETWEEN
from inf_llm.formats import DocumentText, Place, label_of
from inf_llm.generation import check_document
from inf_llm.serve.errors import ApiError, bad_value
from inf_llm.serve.values import checked_text, flag, wrong
from inf_llm.serve.vendors import check_names

MOST_DOCUMENTS = 256
LONGEST_NAME = 200


def new_id(home: str = "") -> str:
    """An id that cannot be guessed, with the name of the one of several servers that has it."""
    return "-".join(filter(None, ("doc", home, secrets.token_urlsafe(18))))


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
        memory: name of its memory on the disk, if it outlives the server.
        owner: the client that uploaded it.
        origin: what the text was made of, as "a PDF of 36 pages"; empty for a text.
        places: first and last character, and the name, of its pages or of what has a heading.
    """

    text: str
    name: str
    id: str = field(default_factory=lambda: new_id())
    created: int = field(default_factory=lambda: int(time.time()))
    tokens: int = 0
    cut: int = 0
    bytes: int | None = None
    kept_tokens: int = 0
    memory: str | None = None
    owner: str = ""
    origin: str = ""
    places: list[tuple[int, int, str]] = field(default_factory=list)

    @classmethod
    def of(cls, content: DocumentText, name: str, owner: str, home: str = "") -> Document:
        """A document with the text of a file; its id has the name of the server that reads it."""
        origin, places = content.origin, _plain(content.places, 0)
        own_id = new_id(home)
        return cls(content.text, name, own_id, owner=owner, origin=origin, places=places)

    @property
    def core(self) -> str:
        """The text without the white space around it, as a prompt has it."""
        return self.text.strip()

    @property
    def lead(self) -> int:
        """Characters of white space before the core."""
        return len(self.text) - len(self.text.lstrip())

    def with_more(self, content: DocumentText) -> Document:
        """The same with a text behind it, which is not read yet."""
        before = self.text.rstrip() + BETWEEN
        lead = len(content.text) - len(content.text.lstrip())
        places = self.places + _plain(content.places, len(before) - lead)
        return replace(self, text=before + content.text.strip(), places=places, memory=None)

    def label(self, start: int, end: int) -> str:
        """The page or heading of characters [start, end); empty where it has none."""
        return label_of([Place(*place) for place in self.places], start, end)

    def described(self) -> dict[str, Any]:
        """The form of the API."""
        return {
            "id": self.id,
            "object": "document",
            "status": "ready",
            "created": self.created,
            "name": self.name,
            "origin": self.origin,
            "characters": len(self.text),
            "tokens": self.tokens,
            "cut_tokens": self.cut,
            "bytes": self.bytes,
            "kept": bool(self.kept_tokens),
            "kept_tokens": self.kept_tokens,
            "saved": self.memory is not None,
        }


def _plain(places: Sequence[Place], shift: int) -> list[tuple[int, int, str]]:
    return [(place.start + shift, place.end + shift, place.label) for place in places]


@dataclass(frozen=True)
class Sources:
    """Documents that a question is about, one after another as its prompt has them."""

    documents: tuple[Document, ...] = ()

    @property
    def core(self) -> str:
        """What stands in the prompt."""
        return BETWEEN.join(document.core for document in self.documents)

    @property
    def ends(self) -> list[int]:
        """Where each document ends in the core."""
        lengths = [len(document.core) + len(BETWEEN) for document in self.documents]
        return [end - len(BETWEEN) for end in accumulate(lengths)]

    def place(self, start: int, end: int) -> tuple[Document, int, int] | None:
        """The document that characters of the core are in, and which of its text they are."""
        for document, last in zip(self.documents, self.ends, strict=True):
            first = last - len(document.core)
            if first <= start < end <= last:
                shift = document.lead - first
                return document, start + shift, end + shift
        return None


class Documents:
    """The texts held. Of the client that has most, those used least recently leave first.

    Args:
        characters: most characters held together.

    Attributes:
        room: so many.
    """

    def __init__(self, characters: int) -> None:
        self.room = characters
        self._held: OrderedDict[str, Document] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._held)

    def __contains__(self, name: str) -> bool:
        return name in self._held

    def add(self, document: Document) -> list[Document]:
        """Hold a text, in place of another of its id; those that had to leave for it."""
        left = []
        with self._lock:
            self._held[document.id] = document
            self._held.move_to_end(document.id)
            while len(self._held) > 1 and self._too_much():
                left.append(self._held.pop(self._leaving().id))
        return left

    def _leaving(self) -> Document:
        """The one that leaves next, which is not the newest."""
        shares: defaultdict[str, float] = defaultdict(float)
        for each in self._held.values():
            shares[each.owner] += len(each.text) / self.room + 1 / MOST_DOCUMENTS
        return max([*self._held.values()][:-1], key=lambda each: shares[each.owner])

    def all(self) -> list[Document]:
        """Every text, the oldest first."""
        with self._lock:
            return sorted(self._held.values(), key=lambda document: document.created)

    def _too_much(self) -> bool:
        total = sum(len(document.text) for document in self._held.values())
        return len(self._held) > MOST_DOCUMENTS or total > self.room

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

    def remove(self, name: str) -> Document:
        """Forget a text, and give it a last time."""
        document = self.get(name)
        with self._lock:
            self._held.pop(name, None)
        return document


def changed(name: str) -> ApiError:
    """A document is another one now than the one that a text was put behind."""
    return ApiError(
        409,
        f"the document {name!r} was changed or removed meanwhile: look at it and send yours again",
        "document_changed",
        "document",
    )


@dataclass(frozen=True)
class Upload:
    """A request to read a text.

    Attributes:
        content: the text, or the bytes of a file.
        name: what the client calls it.
        stream: whether progress is wanted as the answer.
        background: whether the client does not wait.
    """

    content: str | bytes
    name: str
    stream: bool
    background: bool


def uploaded(data: dict[str, Any]) -> Upload:
    """The body of a request to /v1/documents, or to append to one.

    Raises:
        ApiError: something in it is not accepted.
    """
    check_names(data, ("text", "texts", "file", "name", "stream", "background"))
    name = data.get("name")
    name = "" if name is None else checked_text("name", name)
    stream, background = flag(data, "stream"), flag(data, "background")
    if stream and background:
        raise bad_value("background", "background and stream exclude each other: see /events")
    given = [key for key in ("text", "texts", "file") if data.get(key) is not None]
    if len(given) > 1:
        raise bad_value(given[1], f"{given[0]} and {given[1]} exclude each other")
    content = _file(data["file"]) if given == ["file"] else _joined(data)
    return Upload(content, name[:LONGEST_NAME], stream, background)


def _file(value: Any) -> bytes:
    try:
        return base64.b64decode("".join(str.split(value)), validate=True)  # some cut it into lines
    except (TypeError, ValueError):
        raise wrong("file", value, "the bytes of a file in base64") from None


def _joined(data: dict[str, Any]) -> str:
    texts = data.get("texts")
    if texts is None:
        return checked_text("text", data.get("text"), check_document)
    if not isinstance(texts, list) or not texts:
        raise wrong("texts", texts, "a list of at least one text")
    first, *others = (checked_text("texts", text, check_document) for text in texts)
    return BETWEEN.join([first.rstrip(), *(text.strip() for text in others)]) if others else first
