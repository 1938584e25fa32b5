"""`benchmark/documents.py`: a needle in a document of each kind, on the embedded model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmark import documents
from inf_llm.hf.load import DEMO
from tests.documents import docx, epub, html, pdf, with_documents

pytestmark = [
    with_documents,
    pytest.mark.skipif(not (DEMO / "model.safetensors").exists(), reason="no demo model here"),
]

CHAPTERS = [("One", "The grass is green."), ("Two", "The sky is blue."), ("Three", "Here we go.")]


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
    assert documents.main([str(folder), "--json", str(file)]) == 0
    rows = {row["file"]: row for row in json.loads(file.read_text())}
    assert "a scan" in rows.pop("g.pdf")["refused"]
    assert "cut off or damaged" in rows.pop("h.docx")["refused"]
    assert all(row["found"] and row["tokens"] for row in rows.values())
    assert [row["label"] for row in rows.values()] == ["page 2", "Two", "Two", "Two", "One", ""]
