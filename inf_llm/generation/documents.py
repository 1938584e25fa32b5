"""Documents from a file, from standard input or from bytes; data that is not text is refused."""

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
_HEAD = 1024  # first characters of a text, in which a file format is recognised


def read_document(path: str | Path | None) -> DocumentText:
    """Read a file, or standard input if the path is None or "-"; return its text and places.

    UTF-8 text is returned unchanged; `document_of` lists the other formats.

    Raises:
        TextError: the file does not exist, or no text can be read from it.
        MissingExtraError: the package that reads this file format is not installed.
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
    """Return only the text of a document; see `read_document`."""
    return read_document(path).text


def piped_document() -> DocumentText:
    """Return the document that is piped into standard input.

    The text is empty if standard input is a terminal, closed or blank.

    Raises:
        TextError: no text can be read from the data.
        MissingExtraError: the package that reads this file format is not installed.
    """
    if sys.stdin is None or sys.stdin.isatty():
        return DocumentText("")
    data = sys.stdin.buffer.read()
    return document_of(data, STANDARD_INPUT) if data.strip() else DocumentText("")


def document_of(data: bytes, name: str) -> DocumentText:
    """Return the text in the bytes of a file, and its places.

    PDF, EPUB, Word documents and HTML pages are recognised by their bytes, Markdown by the file
    name. Other texts may be in any Unicode encoding, or in an older encoding that is detected.

    Args:
        data: the bytes of the file.
        name: name of the file; error messages begin with it.

    Raises:
        TextError: no text can be read from the bytes; the message gives the reason.
        MissingExtraError: the package that reads this file format is not installed.
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
    """Check that a decoded text is readable, and return it.

    Args:
        name: name of the text in error messages.
        text: the decoded text.

    Raises:
        TextError: the value is empty or is not text; the message names its format, if recognised,
            and a remedy.
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
