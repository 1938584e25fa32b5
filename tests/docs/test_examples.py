"""Every file in examples/ runs offline and finds what it asks for."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

from inf_llm.variants import EVICTION
from tests.docs.pages import ROOT

EXPECTED = {
    "read_and_ask": [r"read \d,\d+ tokens", r"pass key is 48213 \(", r"digits is 8830417725 \("],
    "own_eviction": [rf"{name}: 48213; \d\d\.\d%" for name in ("lfu", "lru", "fifo")],
    "citations": [r"answer: 48213\n0\.\d\d  [^\n]*The pass key is 48213\. Remember it\."],
}


def test_every_example_is_run() -> None:
    assert {path.stem for path in (ROOT / "examples").glob("*.py")} == set(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_an_example(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("sys.argv", [name])
    monkeypatch.setattr(EVICTION, "_added", {})
    runpy.run_path(str(ROOT / "examples" / f"{name}.py"), run_name="__main__")
    output = capsys.readouterr().out
    for pattern in EXPECTED[name]:
        assert re.search(pattern, output), output
    if name == "citations":
        assert "48213" in (tmp_path / "recall.html").read_text(encoding="utf-8")
    if name == "own_eviction":
        shares = re.findall(r"\d\d\.\d%", output)
        assert len(set(shares)) == len(shares)
