"""The kind of a file, by its first bytes; its name counts only if the bytes do not decide."""

from __future__ import annotations

import codecs
from pathlib import Path
from typing import Literal

from inf_llm.errors import TextError

_CONVERT, _UNPACK, _NO_TEXT = "make a text of it first", "unpack it first", "only text can be read"
Magic = tuple[tuple[int, bytes, str, str], ...]
Kind = Literal["pdf", "epub", "docx", "html"]

TEXTUAL: Magic = (
    (0, b"%PDF-", "a PDF document", f"{_CONVERT}, for example with pdftotext"),
    (0, b"%!PS", "a PostScript document", f"{_CONVERT}, for example with ps2ascii"),
    (0, b"{\\rtf", "an RTF document", f"{_CONVERT}, for example with pandoc -t plain"),
    (0, b"version https://git-lfs", "a Git LFS pointer", "fetch the file itself: git lfs pull"),
)
"""Formats that may decode as text but are not text: offset, bytes there, name of the format, and
advice to the user."""

BINARY: Magic = (
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
"""The same for formats that do not decode as text, or have zero bytes."""

_IN_ZIP: tuple[tuple[bytes, str, Kind | None], ...] = (
    # names of files, and content that is not compressed, are readable in the archive's bytes
    (b"mimetypeapplication/epub+zip", "an EPUB book", "epub"),
    (b"mimetypeapplication/vnd.oasis.opendocument", "an OpenDocument file", None),
    (b"word/document", "a Word document (DOCX)", "docx"),
    (b"xl/workbook.xml", "an Excel workbook (XLSX)", None),
    (b"ppt/presentation.xml", "a PowerPoint file (PPTX)", None),
    (b"META-INF/container.xml", "an EPUB book", "epub"),
)
_ZIP_SUFFIXES = {".epub": "an EPUB book", ".docx": "a Word document (DOCX)"}
_ENCRYPTED = "EncryptedPackage".encode("utf-16-le")
_HEAD = 1024
"""Number of bytes at the start of a file that are examined."""
_ZEROS, _FEW_ZEROS, _SHORT = 0.25, 0.04, 64
"""Least share of zero bytes in UTF-16: in general, as in Latin letters; and, in a text of at least
`_SHORT` bytes, if the zeros are only at even or only at odd offsets."""


def kind_of(data: bytes) -> Kind | None:
    """Return "pdf", "epub" or "docx" for such a document, and None for every other file."""
    if _head(data).lstrip().startswith(b"%PDF-"):
        return "pdf"
    if not data.startswith(b"PK\x03\x04"):
        return None
    return next((kind for mark, _, kind in _IN_ZIP if mark in data), None)


def is_page(text: str) -> bool:
    """Whether a text is an HTML or XHTML page."""
    head = text[:_HEAD].lstrip().lower()
    return head.startswith(("<!doctype html", "<html")) or (
        head.startswith("<?xml") and "<html" in head
    )


def refuse(name: str, data: bytes, magic: Magic) -> None:
    """Raise `TextError` if the bytes begin like those of a format that is not text."""
    head = _head(data)
    for offset, mark, what, remedy in magic:
        if (head if offset else head.lstrip()).startswith(mark, offset):
            if what == "a ZIP archive":
                what, remedy = _in_zip(name, data) or (what, remedy)
            if _ENCRYPTED in data and what == "a document of an old Office":
                what, remedy = "an encrypted document of Office", "save it without a password"
            raise TextError(f"{name}: is {what}, not text: {remedy}")


def guess(data: bytes) -> str:
    """Return the end of an error message: what the bytes may be, or how to convert them."""
    if wide := wide_guess(data):
        return f", but may be {wide}: convert it first, with iconv -f {wide} -t UTF-8"
    if 0 in data:
        return ": it has a zero byte, as binary files do"
    return ": convert it to UTF-8 first, for example with iconv -f CP1252 -t UTF-8"


def wide_guess(data: bytes) -> str:
    """Return "UTF-16LE" or "UTF-16BE" if the zero bytes are as in such text, otherwise ""."""
    even, odd = data[:_HEAD:2].count(0), data[1:_HEAD:2].count(0)
    share = (even + odd) / max(1, len(data[:_HEAD]))
    one_sided = min(even, odd) == 0 and len(data) >= _SHORT
    if len(data) % 2 or share < (_FEW_ZEROS if one_sided else _ZEROS):
        return ""
    return "UTF-16LE" if odd > even else "UTF-16BE"


def _head(data: bytes) -> bytes:
    return data[:_HEAD].removeprefix(codecs.BOM_UTF8)


def _in_zip(name: str, data: bytes) -> tuple[str, str] | None:
    """Return the document format of an archive and advice on it, or None for other archives."""
    inside = next((what for mark, what, _ in _IN_ZIP if mark in data), None)
    what = inside or _ZIP_SUFFIXES.get(Path(name).suffix.lower())
    return (what, f"{_CONVERT}, for example with pandoc -t plain") if what else None
