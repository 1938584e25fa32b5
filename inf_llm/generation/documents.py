"""Texts to read: from a file, standard input or a program; decoded, or refused by what they are."""

from __future__ import annotations

import codecs
import sys
from pathlib import Path

from inf_llm.checks import check_text
from inf_llm.errors import TextError

_CONVERT, _UNPACK, _NO_TEXT = "make a text of it first", "unpack it first", "only text can be read"
_Magic = tuple[tuple[int, bytes, str, str], ...]

TEXTUAL: _Magic = (
    (0, b"%PDF-", "a PDF document", f"{_CONVERT}, for example with pdftotext"),
    (0, b"%!PS", "a PostScript document", f"{_CONVERT}, for example with ps2ascii"),
    (0, b"{\\rtf", "an RTF document", f"{_CONVERT}, for example with pandoc -t plain"),
    (0, b"version https://git-lfs", "a Git LFS pointer", "fetch the file itself: git lfs pull"),
)
"""Offset, bytes there, what has them, what to do: of what may decode as text and is none."""

BINARY: _Magic = (
    (0, b"PK\x03\x04", "a ZIP archive", _UNPACK),
    (0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "a document of an old Office", _CONVERT),
    (0, b"AT&TFORM", "a DjVu document", f"{_CONVERT}, for example with djvutxt"),
    (60, b"BOOKMOBI", "a Kindle book", f"{_CONVERT}, for example with ebook-convert"),
    (0, b"\x1f\x8b", "compressed with gzip", _UNPACK),
    (0, b"BZh", "compressed with bzip2", _UNPACK),
    (0, b"\xfd7zXZ\x00", "compressed with xz", _UNPACK),
    (0, b"\x28\xb5\x2f\xfd", "compressed with zstd", _UNPACK),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive", _UNPACK),
    (0, b"Rar!\x1a\x07", "a RAR archive", _UNPACK),
    (257, b"ustar", "a tar archive", _UNPACK),
    (0, b"\x89PNG\r\n", "a PNG image", _NO_TEXT),
    (0, b"\xff\xd8\xff", "a JPEG image", _NO_TEXT),
    (0, b"GIF8", "a GIF image", _NO_TEXT),
    (0, b"\x7fELF", "a program", _NO_TEXT),
    (0, b"MZ", "a program", _NO_TEXT),
    (0, b"SQLite format 3", "an SQLite database", _NO_TEXT),
    (0, b"GGUF", "a model in GGUF", "name it with --model"),
)
"""The same of what does not decode, or has zero bytes."""

_IN_ZIP = (  # names, and what is not compressed, stand in an archive as they are
    (b"mimetypeapplication/epub+zip", "an EPUB book"),
    (b"mimetypeapplication/vnd.oasis.opendocument", "an OpenDocument file"),
    (b"word/document.xml", "a Word document (DOCX)"),
    (b"xl/workbook.xml", "an Excel workbook (XLSX)"),
    (b"ppt/presentation.xml", "a PowerPoint file (PPTX)"),
)
_ZIP_SUFFIXES = {".epub": "an EPUB book", ".docx": "a Word document (DOCX)"}
_MARKS = (  # UTF-32 first, whose mark begins as that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_HEAD = 1024
"""Bytes at the start of a file that show what it is."""


def read_text(path: str | Path | None) -> str:
    """The text of a file, or of standard input where the path is None or "-".

    Raises:
        TextError: there is no such file, it is no text in UTF-8, UTF-16 or UTF-32 (the latter two
            with a byte order mark), or it is empty.
    """
    if path is None or str(path) == "-":
        if sys.stdin is None:
            raise TextError("standard input: is closed; name a file instead")
        name, data = "standard input", sys.stdin.buffer.read()
    else:
        name = str(path)
        try:
            data = Path(path).read_bytes()
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise TextError(f"{name}: cannot be read: {reason}") from None
    return check_document(name, _decoded(name, data))


def piped_text() -> str:
    """What is piped into standard input; nothing where it is a terminal, closed or empty.

    Raises:
        TextError: it is no text.
    """
    if sys.stdin is None or sys.stdin.isatty():
        return ""
    text = _decoded("standard input", sys.stdin.buffer.read())
    return check_document("standard input", text) if text.strip() else ""


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
        _refuse(name, data, TEXTUAL + BINARY)
        raise TextError(f"{name}: is not text{_guess(data)}")
    check_text(name, text)
    _refuse(name, text[:_HEAD].encode(), TEXTUAL)
    if not text.strip():
        raise TextError(f"{name}: is empty, there is nothing to read")
    return text


def _decoded(name: str, data: bytes) -> str:
    encoding = next((code for mark, code in _MARKS if data.startswith(mark)), "utf-8")
    try:
        return data.decode(encoding).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        _refuse(name, data, TEXTUAL + BINARY)
        raise TextError(
            f"{name}: is not text in {encoding.upper()} (byte {error.start:,}){_guess(data)}"
        ) from None


def _refuse(name: str, data: bytes, magic: _Magic) -> None:
    """Raise `TextError` where the bytes begin as those of something that is no text."""
    head = data[:_HEAD].removeprefix(codecs.BOM_UTF8)
    for offset, mark, what, remedy in magic:
        if (head if offset else head.lstrip()).startswith(mark, offset):
            if what == "a ZIP archive":
                what, remedy = _in_zip(name, data) or (what, remedy)
            raise TextError(f"{name}: is {what}, not text: {remedy}")


def _in_zip(name: str, data: bytes) -> tuple[str, str] | None:
    """What an archive is, where it is a document, and what to do with it."""
    inside = next((what for mark, what in _IN_ZIP if mark in data), None)
    what = inside or _ZIP_SUFFIXES.get(Path(name).suffix.lower())
    return (what, f"{_CONVERT}, for example with pandoc -t plain") if what else None


def _guess(data: bytes) -> str:
    """What else bytes may be that are no text in the expected encoding, and what to do."""
    head = data[:_HEAD]
    if head.count(0) > len(head) // 4 and len(data) % 2 == 0:
        guess = f"UTF-16{'LE' if head[1::2].count(0) > head[::2].count(0) else 'BE'}"
        return f", but may be {guess}: convert it first, with iconv -f {guess} -t UTF-8"
    if 0 in data:
        return ": it has a zero byte, as binary files do"
    page = ", but an HTML page" if head.lstrip()[:5].lower() in (b"<!doc", b"<html") else ""
    return f"{page}: convert it to UTF-8 first, for example with iconv -f CP1252 -t UTF-8"
