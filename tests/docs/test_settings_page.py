"""docs/settings.md is what its script makes, and the script sees a change."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from inf_llm.config import ModelConfig, RunConfig
from inf_llm.settings import settings_class
from inf_llm.variants import ATTENTION
from scripts import make_settings_doc


def test_the_page_is_up_to_date() -> None:
    assert make_settings_doc.main(["--check"]) == 0


@pytest.mark.parametrize("row", ["| `topk` |", "| `lru-s` |"])
def test_a_page_that_lags_behind_is_noticed(
    row: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = make_settings_doc.FILE.read_text(encoding="utf-8")
    assert row in page
    monkeypatch.setattr(make_settings_doc, "FILE", tmp_path / "settings.md")
    make_settings_doc.FILE.write_text(page.replace(row, "| gone |"), encoding="utf-8")
    assert make_settings_doc.main(["--check"]) == 1
    assert "make_settings_doc.py" in capsys.readouterr().err
    assert make_settings_doc.main([]) == 0
    assert make_settings_doc.main(["--check"]) == 0


def test_every_key_of_a_file_has_a_row_with_a_meaning() -> None:
    rows = [line.split(" | ") for line in make_settings_doc.page().splitlines() if "| `" in line]
    meanings = {key.strip("|` "): meaning.strip("| ") for key, *_, meaning in rows}
    classes = [ModelConfig, *(settings_class(name) for name in ATTENTION.own)]
    keys = {each.name for cls in classes for each in dataclasses.fields(cls)}
    keys |= {each.name for each in dataclasses.fields(RunConfig)}
    assert keys - set(make_settings_doc.NOT_IN_A_FILE) <= meanings.keys()
    assert all(meanings.values())
