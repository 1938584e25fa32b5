"""`benchmark/pace.py`: both figures, and its refusals."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmark import pace


def test_what_was_foreseen_stands_beside_what_happened(tmp_path: Path) -> None:
    out = tmp_path / "pace.json"
    arguments = ["demo-inf-llm", "--tokens", "3k", "--json", str(out), "model.dtype=float32"]
    assert pace.main(arguments) == 0
    facts = json.loads(out.read_text())
    assert facts["tokens"] == 3072
    assert facts["dtype"] == "float32"
    assert facts["reading"] > facts["answering"] > 0
    assert 0.02 < facts["reading_planned"] < 50
    assert 0.02 < facts["answering_planned"] < 50


def test_a_length_that_is_none_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert pace.main(["demo-inf-llm", "--tokens", "long"]) == 2
    assert "--tokens" in capsys.readouterr().err
