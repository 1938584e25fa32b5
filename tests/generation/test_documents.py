"""Texts are read in any Unicode, or refused by what they are, the same at every door."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest

from inf_llm.errors import TextError
from inf_llm.generation import check_document, piped_text, read_text

PROSE = "Well, Prince, so Genoa and Lucca are now just family estates: voilà. "


def archive(**files: str) -> bytes:
    """A ZIP archive; two underscores in a name stand for a slash, one more for a dot."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as made:
        for name, text in files.items():
            how = zipfile.ZIP_STORED if name == "mimetype" else zipfile.ZIP_DEFLATED
            made.writestr(name.replace("__", "/").replace("_", "."), text, how)
    return data.getvalue()


REFUSED = {
    "nothing": (b"", "is empty"),
    "space": (b" \n\t\n", "is empty"),
    "a mark alone": (b"\xef\xbb\xbf", "is empty"),
    "half text": (b"text then \xff\xfe\x00", "not text in UTF-8 (byte 10): it has a zero byte"),
    "latin": (PROSE.encode("cp1252"), "not text in UTF-8 (byte 66): convert it to UTF-8 first"),
    "page": ("<!DOCTYPE html><p>à".encode("latin-1"), "(byte 18), but an HTML page: convert it"),
    "utf-16, no mark": (PROSE.encode("utf-16-le"), "may be UTF-16LE"),
    "utf-16, big": ("Hello".encode("utf-16-be"), "may be UTF-16BE"),
    "utf-16, cut": (PROSE.encode("utf-16")[:-1], "not text in UTF-16"),
    "zeros": (b"A\x01\x02\x03\x04\x05\0", "is not text: it has a zero byte"),
    "pdf": (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj\n", "is a PDF document, not text"),
    "pdf, ascii": (b"%PDF-1.4\n1 0 obj\n<< /Type /Catalog >>\n%%EOF\n", "pdftotext"),
    "pdf, behind a mark": (b"\xef\xbb\xbf\n%PDF-1.4\n", "is a PDF document"),
    "postscript": (b"%!PS-Adobe-3.0\n", "is a PostScript document"),
    "rtf": (b"{\\rtf1\\ansi Hello}", "is an RTF document"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "git lfs pull"),
    "epub": (archive(mimetype="application/epub+zip", a_xml=PROSE), "is an EPUB book, not text"),
    "docx": (archive(word__document_xml=PROSE), "is a Word document (DOCX), not text: make"),
    "zip": (archive(a_txt=PROSE), "is a ZIP archive, not text: unpack it first"),
    "gzip": (b"\x1f\x8b\x08\x00\x00", "compressed with gzip"),
    "png": (b"\x89PNG\r\n\x1a\n\x00\x00", "is a PNG image, not text"),
    "program": (b"\x7fELF\x02\x00\x00", "is a program, not text"),
    "old word": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "document of an old Office"),
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
    file.write_bytes(archive(content_xml=PROSE))
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


@pytest.mark.parametrize("text", [PROSE, "GIF8 BZh MZ PK", "# %PDF- is how PDF begins", "<html>x"])
def test_texts_are_read_as_they_are(tmp_path: Path, text: str) -> None:
    file = tmp_path / "book.txt"
    file.write_text(text)
    assert read_text(file) == check_document("it", text) == text


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


def test_what_is_piped(monkeypatch: pytest.MonkeyPatch) -> None:
    standard_input("für".encode("utf-16"), monkeypatch)
    assert piped_text() == "für"
    standard_input(b" \n", monkeypatch)
    assert piped_text() == ""
    standard_input(b"%PDF-1.4", monkeypatch)
    with pytest.raises(TextError, match="standard input: is a PDF document"):
        piped_text()
    monkeypatch.setattr("sys.stdin", None)
    assert piped_text() == ""
