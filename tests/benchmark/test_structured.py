"""benchmark/structured.py: what counts as valid, as cut, and as invalid."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmark import structured
from inf_llm.config import SHIPPED_CONFIGS
from inf_llm.generation.grammar import Grammar
from inf_llm.hf.load import load

pytest.importorskip("llguidance", reason="needs the extra 'structured'")
pytest.importorskip("jsonschema", reason="needs the extra 'dev'")


@pytest.fixture(scope="module")
def demo() -> Any:
    return load(SHIPPED_CONFIGS / "demo-inf-llm.yaml", ["model.dtype=float32"])


def judged(demo: Any, longest: int) -> dict[str, Any]:
    return structured.validity(structured.Writer(*demo, longest, 1.0), "enum", 3, 0)


def test_answers_that_end_are_valid_and_others_cut(demo: Any) -> None:
    ended, cut = judged(demo, 120), judged(demo, 2)
    assert (ended["valid"], ended["cut"], ended["invalid"]) == (3, 0, [])
    assert (cut["valid"], cut["cut"], cut["invalid"]) == (0, 3, [])


def test_answers_under_another_grammar_are_invalid(
    demo: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other(writer: structured.Writer, name: str) -> Grammar:
        return writer._grammars.of_schema({"type": "integer", "minimum": 0, "maximum": 9})

    monkeypatch.setattr(structured.Writer, "grammar", other)
    row = judged(demo, 120)
    assert (row["valid"], row["cut"], len(row["invalid"])) == (0, 0, 3)


def test_the_command_writes_its_figures(tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    sizes = ["--answers", "1", "--rounds", "1", "--max-new-tokens", "8", "--json", str(file)]
    assert structured.main(sizes) == 0
    facts = json.loads(file.read_text())
    assert all(row["valid"] + row["cut"] == 1 for row in facts["schemas"])
    assert len(facts["ratios"]) == 1
