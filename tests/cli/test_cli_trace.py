"""`inf-llm run --trace`: the report is written, or it is said at once why it cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from inf_llm.cli import app
from tests.tiny import SETTINGS, tiny_model, tiny_tokenizer


@pytest.fixture
def config(tmp_path: Path) -> Path:
    tiny_model().save_pretrained(tmp_path / "tiny")
    tiny_tokenizer().save_pretrained(tmp_path / "tiny")
    rows = "".join(f"  {key}: {value}\n" for key, value in SETTINGS.items())
    file = tmp_path / "tiny.yaml"
    file.write_text(f"model:\n  type: inf-llm\n  path: {tmp_path / 'tiny'}\n{rows}")
    return file


def _run(config: Path, trace: Path, *overrides: str) -> tuple[int, str]:
    book = config.parent / "book.txt"
    book.write_text("It was the best of times. " * 30)
    words = ["-c", str(config), "-f", str(book), "-p", "Who?", "-n", "4"]
    done = CliRunner().invoke(app, ["run", *words, "--trace", str(trace), *overrides])
    return done.exit_code, done.output


def test_a_report_is_written(config: Path, tmp_path: Path) -> None:
    code, output = _run(config, tmp_path / "out.html")
    assert code == 0, output
    assert "best of times" in (tmp_path / "out.html").read_text()


@pytest.mark.parametrize("name", ["", "nowhere/out.html"])
def test_a_file_that_cannot_be_is_said(config: Path, tmp_path: Path, name: str) -> None:
    code, output = _run(config, tmp_path / name)
    assert code == 2
    assert "--trace" in output


def test_a_type_that_recalls_nothing_is_said(config: Path, tmp_path: Path) -> None:
    code, output = _run(config, tmp_path / "out.html", "model.type=stream-lm")
    assert code == 2
    assert "recalls nothing" in output
