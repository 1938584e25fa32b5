"""benchmark/fidelity.py: a folder for every line; one that fails does not stop the others."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmark.fidelity import main, read_grid
from inf_llm.errors import TextError
from tests.checkpoints import script, write_config

WORDS = "--length 500 --contexts 1 --questions 1 --tasks number"


def test_lines() -> None:
    text = "# a grid\n\na -c x --against 'topk=1 topk=2'  # two\nb --length 4k\n"
    assert read_grid(text) == {
        "a": ["-c", "x", "--against", "topk=1 topk=2"],
        "b": ["--length", "4k"],
    }
    for wrong in ("a x\na y", "a/b x", "--length 4k", "a 'x"):
        with pytest.raises(TextError, match="line"):
            read_grid(wrong)


def test_every_line_has_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script().main(tmp_path / "model")
    config = write_config(tmp_path / "a.yaml", "inf-llm", str(tmp_path / "model"))
    grid = tmp_path / "grid.txt"
    grid.write_text(f"bad -c {config} {WORDS} model.topk=0\ngood -c {config} {WORDS}\n")
    assert main([str(grid), "--out", str(tmp_path / "out")]) == 2
    assert "not measured: bad" in capsys.readouterr().err
    assert (tmp_path / "out" / "good" / "rows.jsonl").exists()
    assert not (tmp_path / "out" / "bad").exists()
