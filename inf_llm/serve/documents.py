"""Uploaded texts, bounded in number and size, with ids that cannot be guessed."""

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

MAX_DOCUMENTS = 256
LONGEST_NAME = 200


def new_id(home: str = "") -> str:
    """Make a random id of a document, which contains the name of its server among several."""
    return "-".join(filter(None, ("doc", home, secrets.token_urlsafe(18))))


@dataclass
class Document:
    """An uploaded text that clients ask questions about.

    Attributes:
        text: the text as uploaded.
        name: the client's name for the document.
        id: id of the document in requests.
        created: time of the upload, in seconds since 1970.
        tokens: number of tokens that are read, set when the text is tokenized.
        cut: number of tokens that `truncation` left out.
        bytes: size of the document's memory; None if not known.
        kept_tokens: number of tokens that were in memory right after reading.
        memory: name of its memory on the disk; None if there is none.
        owner: the client that uploaded the text.
        origin: description of the source file, as "a PDF of 36 pages"; empty for a text.
        places: start character, end character and label of each page or section with a heading.
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
        """Make a document of extracted text; its id contains the name `home` of the server."""
        origin, places = content.origin, _plain(content.places, 0)
        own_id = new_id(home)
        return cls(content.text, name, own_id, owner=owner, origin=origin, places=places)

    @property
    def core(self) -> str:
        """The text without surrounding white space, as it stands in a prompt."""
        return self.text.strip()

    @property
    def lead(self) -> int:
        """Number of white space characters before the core."""
        return len(self.text) - len(self.text.lstrip())

    def with_more(self, content: DocumentText) -> Document:
        """Return a copy with another text appended; the result is not read yet."""
        before = self.text.rstrip() + BETWEEN
        lead = len(content.text) - len(content.text.lstrip())
        places = self.places + _plain(content.places, len(before) - lead)
        return replace(self, text=before + content.text.strip(), places=places, memory=None)

    def label(self, start: int, end: int) -> str:
        """Return the page or heading of characters [start, end); empty if there is none."""
        return label_of([Place(*place) for place in self.places], start, end)

    def described(self) -> dict[str, Any]:
        """Return the document as JSON of the API, without its text."""
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
    """The documents of a question, in the order in which its prompt has them."""

    documents: tuple[Document, ...] = ()

    @property
    def core(self) -> str:
        """The joined texts of the documents, as they stand in the prompt."""
        return BETWEEN.join(document.core for document in self.documents)

    @property
    def ends(self) -> list[int]:
        """End of each document in the core, in characters."""
        lengths = [len(document.core) + len(BETWEEN) for document in self.documents]
        return [end - len(BETWEEN) for end in accumulate(lengths)]

    def place(self, start: int, end: int) -> tuple[Document, int, int] | None:
        """Return the document at characters [start, end) of the core, and the range in its text.

        None if no document contains the whole range.
        """
        for document, last in zip(self.documents, self.ends, strict=True):
            first = last - len(document.core)
            if first <= start < end <= last:
                shift = document.lead - first
                return document, start + shift, end + shift
        return None


class Documents:
    """The documents that the server holds.

    When there are too many, the client with the largest share loses its least recently used one.

    Args:
        characters: most characters of all documents together.

    Attributes:
        room: the same limit.
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
        """Add or replace a document by its id; return the documents evicted to make room."""
        left = []
        with self._lock:
            self._held[document.id] = document
            self._held.move_to_end(document.id)
            while len(self._held) > 1 and self._too_much():
                left.append(self._held.pop(self._leaving().id))
        return left

    def _leaving(self) -> Document:
        """Return the document to evict next, which is never the last one added or used."""
        shares: defaultdict[str, float] = defaultdict(float)
        for each in self._held.values():
            shares[each.owner] += len(each.text) / self.room + 1 / MAX_DOCUMENTS
        return max([*self._held.values()][:-1], key=lambda each: shares[each.owner])

    def all(self) -> list[Document]:
        """Return all documents, the oldest first."""
        with self._lock:
            return sorted(self._held.values(), key=lambda document: document.created)

    def _too_much(self) -> bool:
        total = sum(len(document.text) for document in self._held.values())
        return len(self._held) > MAX_DOCUMENTS or total > self.room

    def get(self, name: str) -> Document:
        """Return the document with this id and mark it as used.

        Raises:
            ApiError: there is no such document.
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
        """Remove a document and return it.

        Raises:
            ApiError: there is no such document.
        """
        document = self.get(name)
        with self._lock:
            self._held.pop(name, None)
        return document


def changed(name: str) -> ApiError:
    """Make the error for a document that was changed while a text was being appended to it."""
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
        name: the client's name for the document.
        stream: whether the response is a stream of progress events.
        background: whether the response comes before the text is read.
    """

    content: str | bytes
    name: str
    stream: bool
    background: bool


def uploaded(data: dict[str, Any]) -> Upload:
    """Parse the body of a request that uploads a document or appends to one.

    Raises:
        ApiError: the body has a parameter or a value that is not accepted.
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
        # some encoders break base64 into lines
        return base64.b64decode("".join(str.split(value)), validate=True)
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
