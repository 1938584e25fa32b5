"""Rows are kept as they come; a run goes on where it was cut off, apart from other runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from inf_llm.errors import SettingsError
from inf_llm.fidelity.rows import Results

ASKED = {"length": 1500, "seed": 0}
RULES = {"full": {"type": "stream-lm"}, "a": {"topk": 4}}


def row(question: int, rule: str = "a", context: int = 0, **more: Any) -> dict[str, Any]:
    held = {"task": "number", "context": context, "question": question, "rule": rule, "probes": 2}
    return {**held, **more}


def test_a_run_goes_on(tmp_path: Path) -> None:
    first = Results(tmp_path, ASKED, RULES)
    assert first.missing("number", 0, ["full", "a"]) == ["full", "a"]
    for each in (row(0, "full"), row(1, "full"), row(0)):
        first.add(each)
    with (tmp_path / "rows.jsonl").open("a") as file:
        file.write('{"task": "numb')  # killed here
    again = Results(tmp_path, ASKED, RULES)
    assert again.rows == [{**ASKED, **each} for each in (row(0, "full"), row(1, "full"), row(0))]
    assert again.missing("number", 0, ["full", "a"]) == ["a"]
    assert again.missing("number", 1, ["a"]) == ["a"]
    again.add(row(0, nll=5.0))
    again.add(row(1))
    assert len(again.rows) == 4
    assert "nll" not in again.rows[2], "what was there stays"
    assert Results(tmp_path, ASKED, RULES).rows == again.rows


def test_rules_may_be_added_but_not_changed(tmp_path: Path) -> None:
    Results(tmp_path, ASKED, RULES).add(row(0))
    more = Results(tmp_path, ASKED, {"b": {"topk": 8}})
    more.add(row(0, "b"))
    assert len(Results(tmp_path, ASKED, RULES).rows) == 2
    with pytest.raises(SettingsError, match="other settings for 'a'"):
        Results(tmp_path, ASKED, {"a": {"topk": 5}})
    with pytest.raises(SettingsError, match=r"it has length = 1500, and length = 9 is asked"):
        Results(tmp_path, {**ASKED, "length": 9}, RULES)


def test_folders_that_cannot_be_used(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    with pytest.raises(SettingsError, match=r"--out .* cannot be used"):
        Results(file, ASKED, RULES)
    (tmp_path / "rows.jsonl").write_text("no JSON\n")
    with pytest.raises(SettingsError, match="is no file of rows"):
        Results(tmp_path, ASKED, RULES)
    for text in ("torn {", "[1, 2]"):
        (tmp_path / "run.json").write_text(text)
        with pytest.raises(SettingsError, match=r"run\.json: is not what a run left"):
            Results(tmp_path, ASKED, RULES)


def test_without_a_folder_rows_are_in_memory() -> None:
    results = Results(None, ASKED, RULES)
    results.add(row(0))
    assert results.rows == [{**ASKED, **row(0)}]
