"""Texts are read in any Unicode, or refused by what they are, the same at every door."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from inf_llm.errors import TextError
from inf_llm.formats import DocumentText
from inf_llm.generation import (
    check_document,
    document_of,
    piped_document,
    read_document,
    read_text,
)
from tests.documents import archive, docx, epub, html, pdf, with_documents

PROSE = "Well, Prince, so Genoa and Lucca are now just family estates: voilà. "


REFUSED = {
    "nothing": (b"", "is empty"),
    "space": (b" \n\t\n", "is empty"),
    "a mark alone": (b"\xef\xbb\xbf", "is empty"),
    "half text": (b"text then \xff\xfe\x00", "not text in UTF-8 (byte 10): it has a zero byte"),
    "utf-16, cut": (PROSE.encode("utf-16")[:-1], "not text in UTF-16"),
    "zeros": (b"A\x01\x02\x03\x04\x05\0", "is not text: it has a zero byte"),
    "postscript": (b"%!PS-Adobe-3.0\n", "is a PostScript document"),
    "rtf": (b"{\\rtf1\\ansi Hello}", "is an RTF document"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "git lfs pull"),
    "zip": (archive({"a.txt": PROSE}), "is a ZIP archive, not text: unpack it first"),
    "gzip": (b"\x1f\x8b\x08\x00\x00", "compressed with gzip"),
    "png": (b"\x89PNG\r\n\x1a\n\x00\x00", "is a PNG image, not text"),
    "program": (b"\x7fELF\x02\x00\x00", "is a program, not text"),
    "xlsx": (archive({"xl/workbook.xml": PROSE}), "is an Excel workbook (XLSX), not text: make"),
    "old word": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "document of an old Office"),
    "word with a password": (
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + "EncryptedPackage".encode("utf-16-le"),
        "is an encrypted document of Office, not text: save it without a password",
    ),
    "tar": (b"a.txt" + bytes(252) + b"ustar", "is a tar archive"),
    "model": (b"GGUF\x03\0\0\0", "is a model in GGUF, not text: name it with --model"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_text_is_named(tmp_path: Path, name: str) -> None:
    content, says = REFUSED[name]
    file = tmp_path / "book.txt"
    file.write_bytes(content)
    with pytest.raises(TextError) as caught:
        read_text(file)
    assert str(caught.value).startswith(f"{file}: ")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("suffix", "says"), [("epub", "an EPUB book"), ("docx", "a Word document"), ("zip", "a ZIP")]
)
def test_an_archive_is_what_its_name_says_where_nothing_else_does(
    tmp_path: Path, suffix: str, says: str
) -> None:
    file = tmp_path / f"book.{suffix}"
    file.write_bytes(archive({"content.xml": PROSE}))
    with pytest.raises(TextError, match=f"is {says}"):
        read_text(file)


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-be mark", "utf-32-be mark"]
)
def test_every_unicode_with_a_mark_is_read(tmp_path: Path, encoding: str) -> None:
    file = tmp_path / "book.txt"
    name, _, mark = encoding.partition(" ")
    file.write_bytes((("\ufeff" if mark else "") + PROSE).encode(name))
    assert read_text(file) == PROSE


@pytest.mark.parametrize("text", [PROSE, "GIF8 BZh MZ PK", "# %PDF- is how PDF begins", "x <html>"])
def test_texts_are_read_as_they_are(tmp_path: Path, text: str) -> None:
    file = tmp_path / "book.txt"
    file.write_text(text)
    assert read_text(file) == check_document("it", text) == text
    assert read_document(file) == DocumentText(text)


CHAPTERS = [("One", "first words"), ("Two", "second words")]
KINDS = {
    "book.html": (html(CHAPTERS).encode(), "Two", "a page in HTML"),
    "book.xhtml": (b"<?xml version='1.0'?>\n" + html(CHAPTERS).encode(), "Two", "a page in HTML"),
    "book.htm": (html(CHAPTERS).encode("utf-16"), "Two", "a page in HTML"),
    "book.epub": (epub(CHAPTERS), "Two", "an EPUB book of 2 parts"),
    "book.md": (b"# One\nfirst words\n# Two\nsecond words", "Two", ""),
    "book.txt": (b"# One\nfirst words\n# Two\nsecond words", "", ""),
    "utf-16.txt": ("Two\n\nsecond words".encode("utf-16"), "", "text in UTF-16"),
    "book.docx": (docx(CHAPTERS), "Two", "a Word document"),
    "book.pdf": (pdf(["first words", "second words"]), "page 2", "a PDF of 2 pages"),
    "latin.txt": ("voilà, second words".encode("cp1252"), "", "text in CP1252"),
}


@with_documents
@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("other", ["", ".bin"])
def test_each_kind_is_known_by_its_bytes(name: str, other: str, tmp_path: Path) -> None:
    data, place, origin = KINDS[name]
    file = tmp_path / (name if name.endswith(".md") else name + other)
    file.write_bytes(data)
    document = read_document(file)
    start = document.text.index("second")
    assert document.label(start, start + 6) == place
    assert document.origin == origin
    assert document == document_of(data, str(file))


DAMAGED = {
    "pdf": (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj\n", "is cut off or damaged"),
    "pdf, behind a mark": (b"\xef\xbb\xbf\n%PDF-1.4\n", "is cut off or damaged"),
    "epub": (archive({"mimetype": "application/epub+zip"}), "is damaged: META-INF/container.xml"),
    "docx": (docx(CHAPTERS)[:-50], "is cut off or damaged"),
    "scan": (pdf(["", ""]), "has 2 pages without text, as a scan does"),
}


@with_documents
@pytest.mark.parametrize("name", DAMAGED)
def test_what_cannot_be_read_is_said_in_one_line(name: str) -> None:
    data, says = DAMAGED[name]
    with pytest.raises(TextError) as caught:
        document_of(data, "it.x")
    assert str(caught.value).startswith(f"it.x: {says}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("%PDF \0 \x01", "is not text: it has a zero byte"),
        ("%PDF-1.4\n1 0 obj", "is a PDF document"),
        ("a\0b", "is not text: it has a zero byte"),
        ("a\0b\0", "is not text, but may be UTF-16LE"),
        ("a\0\ud800", "is not text: it has a zero byte"),
        ("PK\x03\x04\0\0word/document.xml", "is a Word document"),
        ("half \ud800", "is not text in UTF-8"),
        ("  ", "is empty"),
    ],
)
def test_the_same_rule_for_what_is_decoded(text: str, says: str) -> None:
    with pytest.raises(TextError, match=f"^it:? {says}"):
        check_document("it", text)


@pytest.mark.parametrize("path", ["no/such/file", "/", "bad\0name"])
def test_no_file(path: str) -> None:
    with pytest.raises(TextError, match="cannot be read"):
        read_text(path)


def standard_input(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))


@pytest.mark.parametrize("path", [None, "-"])
def test_standard_input(path: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    standard_input("für".encode(), monkeypatch)
    assert read_text(path) == "für"
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(TextError, match="standard input: is closed"):
        read_text(path)


@with_documents
def test_documents_of_each_kind_come_from_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("book.pdf", "book.epub", "latin.txt"):
        standard_input(KINDS[name][0], monkeypatch)
        document = read_document("-")
        assert "second words" in document.text
        standard_input(KINDS[name][0], monkeypatch)
        assert piped_document() == document


def test_what_is_piped(monkeypatch: pytest.MonkeyPatch) -> None:
    standard_input("für".encode("utf-16"), monkeypatch)
    assert piped_document().text == "für"
    standard_input(b" \n", monkeypatch)
    assert piped_document().text == ""
    standard_input(b"\x7fELF\xff", monkeypatch)
    with pytest.raises(TextError, match="standard input: is a program"):
        piped_document()
    monkeypatch.setattr("sys.stdin", None)
    assert piped_document().text == ""
