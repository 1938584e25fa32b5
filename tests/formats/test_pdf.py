"""PDF documents: pages are places; scans and garbled ones are refused."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inf_llm.errors import TextError
from inf_llm.formats.pdf import read_pdf
from tests.documents import pdf, pdf_of, stream, with_documents

pytestmark = with_documents

LINES = st.text("abc xyz", max_size=20).map(lambda text: " ".join(text.split()))
ENCRYPTED = (
    "/Encrypt<</Filter/Standard/V 1/R 2/P -1/O<"
    + "00" * 32
    + ">/U<"
    + "00" * 32
    + ">>>/ID[<00><00>]"
)


@given(st.lists(LINES, min_size=1, max_size=6).filter(any))
@settings(max_examples=30)
def test_each_page_is_a_place(pages: list[str]) -> None:
    document = read_pdf(pdf(pages))
    wanted = {f"page {number}": text for number, text in enumerate(pages, 1) if text}
    assert document.text == "\n\n".join(wanted.values())
    found = {place.label: document.text[place.start : place.end] for place in document.places}
    assert {label: text.strip() for label, text in found.items()} == wanted
    assert document.places[-1].end == len(document.text)


def test_what_it_was_is_said() -> None:
    assert read_pdf(pdf(["one"])).origin == "a PDF of 1 page"
    assert read_pdf(pdf(["one", "", "three"])).origin == "a PDF of 3 pages, 1 of them without text"


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (pdf(["", ""]), "^has 2 pages without text, as a scan does: .* ocrmypdf"),
        (pdf([""]), "^has 1 page without text"),
        (pdf(["one"])[:200], "^is cut off or damaged"),
        (pdf_of([stream(b"")], ENCRYPTED), "^is encrypted: save it without a password"),
    ],
)
def test_what_cannot_be_read_is_said(data: bytes, says: str) -> None:
    with pytest.raises(TextError, match=says):
        read_pdf(data)


def test_letters_without_a_meaning_are_no_text() -> None:
    from inf_llm.formats.pdf import _check

    _check(["all right \ue000"], 0)
    with pytest.raises(TextError, match="fonts that do not say which letters"):
        _check(["\ue000\ue001\ue002 ab"], 0)


def _drawn(octal: str, at: int = 100) -> bytes:
    return f"BT /F 12 Tf 9 {at} Td ({octal}) Tj ET\n".encode()


def test_an_accent_that_is_a_glyph_of_its_own_joins_its_letter() -> None:
    data = pdf_of([stream(_drawn(r"al\264abbi")), stream(_drawn("two"))])
    document = read_pdf(data.replace(b"/BaseFont", b"/Encoding/WinAnsiEncoding/BaseFont"))
    assert document.text == "al\u00e1bbi\n\ntwo"
    assert [document.text[p.start : p.end].strip() for p in document.places] == [
        "al\u00e1bbi",
        "two",
    ]


def test_a_hyphen_within_a_line_is_one() -> None:
    data = pdf_of([stream(_drawn(r"well\255known words"))])
    document = read_pdf(data.replace(b"/BaseFont", b"/Encoding/WinAnsiEncoding/BaseFont"))
    assert document.text == "well-known words"


def test_the_wrong_order_of_letters_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    from inf_llm.formats import pdf as reader

    monkeypatch.setattr(reader, "out_of_order", lambda text: text == "one")
    assert "wrong order" in read_pdf(pdf(["one"])).origin
    assert "wrong order" not in read_pdf(pdf(["two"])).origin
