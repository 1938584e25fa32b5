"""`benchmark/documents.py`: a needle in a document of each kind, on the embedded model."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from benchmark import documents
from benchmark.load.planting import plant
from inf_llm.hf.load import DEMO
from tests.documents import docx, epub, html, pdf, with_documents

pytestmark = with_documents

CHAPTERS = [("One", "The grass is green."), ("Two", "The sky is blue."), ("Three", "Here we go.")]


@pytest.mark.skipif(not (DEMO / "model.safetensors").exists(), reason="no demo model here")
def test_a_document_of_each_kind(tmp_path: Path) -> None:
    pytest.importorskip("uvicorn", reason="needs the extra 'serve'")
    folder, file = tmp_path / "folder", tmp_path / "rows.json"
    folder.mkdir()
    for name, data in {
        "a.pdf": pdf([text for _, text in CHAPTERS]),
        "b.epub": epub(CHAPTERS),
        "c.docx": docx(CHAPTERS),
        "d.html": html(CHAPTERS).encode(),
        "e.md": b"# One\n\nThe grass is green.\n\n# Two\n\nThe sky is blue.\n",
        "f.txt": "Übergröße und Ärger überall. Schöne Grüße an die Bäcker.\n".encode("cp1252"),
        "g.pdf": pdf([""]),
        "h.docx": docx(CHAPTERS)[:-30],
    }.items():
        (folder / name).write_bytes(data)
    assert documents.main([str(folder), "--json", str(file), "model.dtype=float32"]) == 0
    rows = {row["file"]: row for row in json.loads(file.read_text())}
    assert "a scan" in rows.pop("g.pdf")["refused"]
    assert "cut off or damaged" in rows.pop("h.docx")["refused"]
    assert all(row["found"] and row["tokens"] for row in rows.values())
    assert [row["label"] for row in rows.values()] == ["page 2", "Two", "Two", "Two", "One", ""]


def test_a_needle_stands_in_the_part_in_the_middle_whatever_else_is_listed() -> None:
    opf = (
        '<package><manifest><item id="a" href="p%200.xhtml"/><item id="b" href="p%201.xhtml"/>'
        '</manifest><spine><itemref idref="a"/><itemref idref="b"/></spine>'
        '<guide><reference href="p%202.xhtml"/></guide></package>'
    )
    planted = plant("epub", "b.epub", epub(CHAPTERS, **{"in/book.opf": opf}), "needle")
    assert planted.label == "Two"
    with zipfile.ZipFile(io.BytesIO(planted.data)) as book:
        assert [b"needle" in book.read(f"in/p {n}.xhtml") for n in range(3)] == [False, True, False]


@pytest.mark.parametrize(
    ("label", "right"),
    [
        ("page 2", True),
        ("page 1 \u2013 page 2", True),
        ("page 2 \u2013 page 3", True),
        ("page 1 \u2013 page 3", True),
        ("page 22", False),
        ("page 3 \u2013 page 4", False),
        ("", False),
        (None, False),
    ],
)
def test_another_page_is_wrong(label: str | None, right: bool) -> None:
    row = documents.Row("a.pdf", "pdf", 9, found=True, wanted="page 2", label=label)
    assert row.right == right
    assert ("WRONG" in row.line()) != right
    assert not replace(row, found=False).right
    assert replace(row, refused="is a scan").right
