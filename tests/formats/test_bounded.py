"""Hostile files end in one line, within the memory and the time that they may take."""

from __future__ import annotations

import time
import zlib

import pytest

from inf_llm.errors import MissingExtraError, TextError
from inf_llm.formats import bounded
from inf_llm.formats.bounded import extracted
from inf_llm.formats.magic import Kind
from tests.documents import docx, epub, html, pdf, pdf_of, stream, with_documents

READ: dict[Kind, bytes] = {
    "html": html([("One", "words")]).encode(),
    "epub": epub([("One", "words")]),
    "docx": docx([("One", "words")]),
    "pdf": pdf(["One words"]),
}


@with_documents
@pytest.mark.parametrize("kind", READ)
def test_each_kind_comes_back_whole(kind: Kind) -> None:
    document = extracted(kind, READ[kind], "it")
    assert document.text.split() == ["One", "words"]
    assert document.places[0].end == len(document.text)
    assert document.origin


@with_documents
def test_a_stream_that_unpacks_to_gigabytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded, "MEMORY", 300 << 20)
    page = stream(zlib.compress(b" " * (400 << 20), 1), "/Filter/FlateDecode")
    with pytest.raises(TextError, match=r"^it: is damaged, or takes more than 314\.6 MB of memory"):
        extracted("pdf", pdf_of([page]), "it")


def test_memory_that_runs_out_in_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded, "MEMORY", 120 << 20)
    with pytest.raises(TextError, match=r"^it: (takes more memory|is damaged, or takes more)"):
        extracted("epub", epub([("", "x" * (100 << 20))]), "it")


def test_time_that_runs_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded, "SECONDS", 0.001)
    begun = time.monotonic()
    with pytest.raises(TextError, match=r"^it: takes longer than 0\.001 s to read"):
        extracted("html", READ["html"], "it")
    assert time.monotonic() - begun < 10


def test_an_entity_bomb() -> None:
    lines = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 10))
    book = f'<!DOCTYPE x [<!ENTITY e0 "{"a" * 99}">{lines}]><package>&e9;</package>'
    with pytest.raises(TextError, match=r"^it: is damaged"):
        extracted("epub", epub([("One", "text")], **{"in/book.opf": book}), "it")


def test_a_document_without_a_word() -> None:
    with pytest.raises(TextError, match=r"^it: has no text in it"):
        extracted("html", b"<html><script>x</script></html>", "it")


@pytest.mark.parametrize(("kind", "package"), [("pdf", "pypdfium2"), ("docx", "mammoth")])
def test_the_extra_is_named_where_it_is_absent(
    kind: Kind, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, package, None)
    with pytest.raises(MissingExtraError, match=r"^it: .* pip install 'inf-llm\[documents\]'"):
        extracted(kind, READ[kind], "it")


def test_html_and_epub_need_no_package() -> None:
    code = "import sys, inf_llm.formats.worker as w; w.READERS['epub'](sys.stdin.buffer.read()); "
    code += "print(*[m for m in ('pypdfium2', 'mammoth', 'chardet', 'torch') "
    code += "if m in sys.modules])"
    run = bounded.subprocess.run(
        [bounded.sys.executable, "-c", code], input=READ["epub"], capture_output=True, check=True
    )
    assert run.stdout.split() == []
