"""The picture comes out where matplotlib is there."""

from __future__ import annotations

from pathlib import Path

import pytest

from inf_llm.fidelity.picture import draw
from tests.fidelity.test_summary import _rows


def test_a_file_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is absent: pip install 'inf-llm[plot]'")
    file = tmp_path / "recall.png"
    assert draw(_rows("key"), file)
    assert file.stat().st_size > 5000


def test_nothing_recalled_nothing_drawn(tmp_path: Path) -> None:
    rows = [row for row in _rows("key") if row["rule"] != "a"]
    assert not draw(rows, tmp_path / "recall.png")
    assert not (tmp_path / "recall.png").exists()
