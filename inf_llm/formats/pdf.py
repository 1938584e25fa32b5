"""PDF documents, page by page. Text in images is not read."""

from __future__ import annotations

import re
from typing import Any

from inf_llm.errors import TextError
from inf_llm.formats.glyphs import composed, out_of_order
from inf_llm.formats.places import DocumentText, places_of
from inf_llm.optional import need

_BETWEEN = "\n\n"
_BREAK = "\f"
_HYPHEN = re.compile("[\x02\ufffe]")
"""Characters that the library puts where a word is broken at the end of a line."""
_PRINTED_HYPHEN = "\u00ad"
"""A hyphen within a line: this character is invisible elsewhere, but has a glyph in a PDF."""
_NO_TEXT = re.compile("[\x00-\x08\x0b-\x1f\x7f\ufeff\uffff\ud800-\udfff]")
_WRONG_ORDER = ", with letters of Arabic or Hebrew in the wrong order"
_UNKNOWN = re.compile("[\ufffd\ue000-\uf8ff]")
_MAX_UNKNOWN = 0.3
"""Share of characters without a meaning above which the document counts as unreadable."""


def read_pdf(data: bytes) -> DocumentText:
    """Return the text of all pages, with an empty line between pages.

    Raises:
        TextError: the document is encrypted or damaged, or has no readable text.
        MissingExtraError: the package that reads PDF documents is not installed.
    """
    pdfium = need("pypdfium2", "a PDF document", "documents")
    try:
        with pdfium.PdfDocument(data) as document:
            pages = [_page(document, number) for number in range(len(document))]
    except pdfium.PdfiumError as error:
        if "assword" in str(error):
            raise TextError("is encrypted: save it without a password") from None
        raise TextError(f"is cut off or damaged ({error})") from None
    empty = sum(not page for page in pages)
    _check(pages, empty)
    pages = composed(_BREAK.join(pages)).split(_BREAK)
    starts, parts, length = [], [], 0
    for number, page in enumerate(pages, 1):
        if page:
            starts.append((length, f"page {number}"))
            parts.append(page)
            length += len(page) + len(_BETWEEN)
    text = _BETWEEN.join(parts)
    origin = f"a PDF of {_counted(pages)}"
    origin += f", {empty:,} of them without text" if empty else ""
    origin += _WRONG_ORDER if out_of_order(text) else ""
    return DocumentText(text, places_of(starts, len(text)), origin)


def _page(document: Any, number: int) -> str:
    page = document[number]
    try:
        words = page.get_textpage()
        try:
            return _cleaned(words.get_text_bounded())
        finally:
            words.close()
    finally:
        page.close()


def _cleaned(text: str) -> str:
    text = _HYPHEN.sub("", text.replace("\r\n", "\n")).replace(_PRINTED_HYPHEN, "-")
    return _NO_TEXT.sub("", text).strip()


def _counted(pages: list[str]) -> str:
    return "1 page" if len(pages) == 1 else f"{len(pages):,} pages"


def _check(pages: list[str], empty: int) -> None:
    if empty == len(pages):
        raise TextError(
            f"has {_counted(pages)} without text, as a scan does: recognize the text first, for "
            "example with ocrmypdf"
        )
    letters = sum(map(len, pages))
    if sum(len(_UNKNOWN.findall(page)) for page in pages) > _MAX_UNKNOWN * letters:
        raise TextError(
            "has fonts that do not say which letters they show: recognize its text first, for "
            "example with ocrmypdf --force-ocr"
        )
