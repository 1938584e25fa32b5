"""Word documents: paragraphs, tables and headings."""

from __future__ import annotations

import pytest

from inf_llm.errors import TextError
from inf_llm.formats.docx import read_docx
from tests.documents import archive, docx, docx_of, with_documents

pytestmark = with_documents

RICH = (
    "<w:p><w:r><w:t>alpha</w:t><w:br/><w:t>beta</w:t><w:tab/><w:t>gamma</w:t></w:r>"
    "<w:ins><w:r><w:t> new</w:t></w:r></w:ins><w:del><w:r><w:delText>old</w:delText></w:r></w:del>"
    "</w:p><w:tbl><w:tr><w:tc><w:p><w:r><w:t>c1</w:t></w:r></w:p></w:tc>"
    "<w:tc><w:p><w:r><w:t>c2</w:t></w:r></w:p></w:tc></w:tr></w:tbl>"
)


def test_headings_are_places() -> None:
    document = read_docx(docx([("One", "first words"), ("Two", "second words")]))
    assert document.text == "One\n\nfirst words\n\nTwo\n\nsecond words"
    assert [place.label for place in document.places] == ["One", "Two"]


def test_line_ends_tabs_changes_and_tables() -> None:
    assert read_docx(docx_of(RICH)).text == "alpha\nbeta gamma new\n\nc1 | c2"


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (docx([("One", "text")])[:-40], "is cut off or damaged"),
        (archive({"word/document.xml": "<x/>"}), "is a ZIP archive, not text: unpack it first"),
        (archive({"[Content_Types].xml": b" " * (300 << 20)}), "unpacks to 314.6 MB"),
    ],
)
def test_what_cannot_be_read_is_said(data: bytes, says: str) -> None:
    with pytest.raises(TextError, match=says):
        read_docx(data)


MATH = 'xmlns:m="http://schemas.openxmlformats.org/officeDocument/2006/math"'
FORMULA = f"<w:p><w:r><w:t>if</w:t></w:r><m:oMath {MATH}><m:r><m:t>x</m:t></m:r></m:oMath></w:p>"


def test_what_is_not_read_is_said() -> None:
    assert read_docx(docx_of(RICH)).origin == "a Word document"
    assert read_docx(docx_of(2 * FORMULA)).origin == "a Word document, without its formulas"
    more = read_docx(docx_of(f"{FORMULA}<w:altChunk/>")).origin
    assert more == "a Word document, without its formulas and documents within it"
