"""Word documents (DOCX)."""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import Any

from inf_llm.errors import TextError
from inf_llm.formats.archive import Archive
from inf_llm.formats.blocks import Blocks
from inf_llm.formats.page import Page
from inf_llm.formats.places import DocumentText
from inf_llm.optional import need

_STYLES = "p[style-name='Title'] => h1:fresh"
_LOST = {"}oMath": "formulas", "}oMathPara": "formulas", "w:altChunk": "documents within it"}
"""Ends of the library's messages about elements that have text but are not read, with names."""


def read_docx(data: bytes) -> DocumentText:
    """Return the text of a document with its footnotes and headings.

    Raises:
        TextError: the document is damaged, encrypted or too large.
        MissingExtraError: the package that reads Word documents is not installed.
    """
    archive = Archive(data)
    if "[Content_Types].xml" not in archive.names:
        raise TextError("is a ZIP archive, not text: unpack it first")
    archive.check_size(name for name in archive.names if name.endswith((".xml", ".rels")))
    mammoth = need("mammoth", "a Word document", "documents")
    pictures = []

    @mammoth.images.img_element
    def passed_over(image: Any) -> dict[str, str]:
        pictures.append(image)
        return {}

    page = mammoth.convert_to_html(
        io.BytesIO(data),
        style_map=_STYLES,
        convert_image=passed_over,
        include_embedded_style_map=False,
    )
    blocks = Blocks()
    Page(blocks).read(page.value)
    lost = _lost(message.message for message in page.messages)
    lost += [f"pictures ({len(pictures)})"] if pictures else []
    without = f", without its {' and '.join(lost)}" if lost else ""
    return blocks.document(f"a Word document{without}")


def _lost(messages: Iterable[str]) -> list[str]:
    """Return names of the elements that the library skipped."""
    ends = tuple(_LOST)
    found = (message for message in messages if message.endswith(ends))
    return list(dict.fromkeys(_LOST[next(filter(each.endswith, ends))] for each in found))
