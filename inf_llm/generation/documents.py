"""Texts to read: from a file, standard input or a program; or refused by what they are."""

from __future__ import annotations

import sys
from pathlib import Path

from inf_llm.checks import check_text
from inf_llm.errors import TextError
from inf_llm.formats import (
    BINARY,
    TEXTUAL,
    DocumentText,
    decoded,
    extracted,
    guess,
    headings,
    is_markdown,
    is_page,
    kind_of,
    refuse,
)

STANDARD_INPUT = "standard input"
_HEAD = 1024  # characters that show what a text is


def read_document(path: str | Path | None) -> DocumentText:
    """The text of a file, or of standard input where the path is None or "-", and its places.

    A text in UTF-8 stays as it is; `document_of` says what else is read.

    Raises:
        TextError: there is no such file, or no text can be read from it.
        MissingExtraError: the package that reads files of its kind is not installed.
    """
    if path is None or str(path) == "-":
        if sys.stdin is None:
            raise TextError(f"{STANDARD_INPUT}: is closed; name a file instead")
        return document_of(sys.stdin.buffer.read(), STANDARD_INPUT)
    try:
        data = Path(path).read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise TextError(f"{path}: cannot be read: {reason}") from None
    return document_of(data, str(path))


def read_text(path: str | Path | None) -> str:
    """The text alone; see `read_document`."""
    return read_document(path).text


def piped_document() -> DocumentText:
    """What is piped into standard input; an empty text where it is a terminal, closed or empty.

    Raises:
        TextError: no text can be read from it.
        MissingExtraError: the package that reads files of its kind is not installed.
    """
    if sys.stdin is None or sys.stdin.isatty():
        return DocumentText("")
    data = sys.stdin.buffer.read()
    return document_of(data, STANDARD_INPUT) if data.strip() else DocumentText("")


def document_of(data: bytes, name: str) -> DocumentText:
    """The text of a file's bytes, and its places.

    PDF, EPUB, Word documents and pages in HTML are known by their bytes, Markdown by its name.
    Other texts may be in any Unicode, or in an older encoding that is found.

    Args:
        data: the bytes.
        name: of the file; messages begin with it.

    Raises:
        TextError: no text can be read from them; the message says why.
        MissingExtraError: the package that reads files of their kind is not installed.
    """
    kind = kind_of(data)
    if kind is not None:
        return extracted(kind, data, name)
    text, encoding = decoded(name, data)
    if is_page(text):
        return extracted("html", text.encode(), name)
    check_document(name, text)
    places = headings(text) if is_markdown(name) else ()
    return DocumentText(text, places, f"text in {encoding}" if encoding else "")


def check_document(name: str, text: str) -> str:
    """The text itself, after it was seen to be one that can be read.

    Args:
        name: what a message calls it.
        text: a text that is decoded already.

    Raises:
        TextError: it is no text; the message says what it is, and what to do with it.
    """
    if isinstance(text, str) and "\0" in text:
        data = text.encode(errors="replace")
        refuse(name, data, TEXTUAL + BINARY)
        raise TextError(f"{name}: is not text{guess(data)}")
    check_text(name, text)
    refuse(name, text[:_HEAD].encode(), TEXTUAL)
    if not text.strip():
        raise TextError(f"{name}: is empty, there is nothing to read")
    return text
