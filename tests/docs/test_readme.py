"""README.md: its first program runs, and its counts are right."""

from __future__ import annotations

import re

import pytest

from inf_llm.hf.load import DEMO
from inf_llm.hf.versions import NEWEST_TESTED
from inf_llm.variants import ATTENTION
from tests.docs.pages import ROOT, blocks
from tests.docs.test_workflows import PROJECT
from tests.hf.zoo import WORKING

FILE = ROOT / "README.md"
PAGE = FILE.read_text(encoding="utf-8")


def test_the_first_program_runs(capsys: pytest.CaptureFixture[str]) -> None:
    """With the embedded model, and a shorter text."""
    first = next(block.code for block in blocks(FILE) if block.language == "python")
    statements = [line for line in first.splitlines() if line and not line.startswith("#")]
    assert len(statements) <= 8, "two imports and six lines"
    code = first.replace("HuggingFaceTB/SmolLM2-135M-Instruct", str(DEMO)).replace("1200", "150")
    assert code != first
    exec(compile(code, "README.md", "exec"), {})
    assert capsys.readouterr().out.strip()


def test_counts_and_versions() -> None:
    assert f"- {len(WORKING)} architectures" in PAGE
    oldest = re.search(r"transformers>=([\d.]+)", " ".join(PROJECT["dependencies"]))
    newest = ".".join(map(str, NEWEST_TESTED))
    assert oldest is not None
    assert f"transformers {oldest[1]} to {newest}" in PAGE
    assert f"- Python {PROJECT['requires-python'].removeprefix('>=')} and later" in PAGE
    for name in ATTENTION.own:
        assert f"\n| `{name}` |" in PAGE
    extras = set(PROJECT["optional-dependencies"]) - {"dev"}
    assert {name for name in extras if f"`[{name}]`" not in PAGE} == set()
