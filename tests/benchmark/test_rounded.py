"""benchmark/rounded.py on the embedded model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmark import rounded


def test_both_kinds_of_weights_are_measured(tmp_path: Path) -> None:
    file = tmp_path / "rounded.json"
    sizes = ["--context", "600", "--tokens", "12", "--rounds", "2", "--json", str(file)]
    assert rounded.main(["demo", *sizes, "model.dtype=float32"]) == 0
    facts = json.loads(file.read_text())
    assert facts["ms a token"] > 0
    assert len(facts["times as fast"]) == 2
    assert 0 < abs(facts["nats lost"]) < 0.1


def test_more_than_there_is_of_the_text_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert rounded.main(["demo", "--tokens", "1000000"]) == 2
    assert "tokens, 3,002,049 are needed" in capsys.readouterr().err
