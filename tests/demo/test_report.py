"""What the demo shows: tables, heat maps, a picture."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from inf_llm.demo import Trial
from inf_llm.demo.report import found_in_band, heat_maps, plot, table
from inf_llm.errors import SettingsError

DEPTHS = tuple((i + 0.5) / 10 for i in range(10))
TRIALS = [
    Trial("stream-lm", 4096, "passkey", DEPTHS, (False,) * 8 + (True,) * 2, 3.0, 2_500_000),
    Trial("inf-llm", 4096, "passkey", DEPTHS, (True,) * 10, 4.0, 1_700_000),
    Trial("inf-llm", 1 << 20, "passkey", DEPTHS, (True, False) * 5, 300.0, 1_700_000),
]


def _shown(what: object) -> str:
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    console.print(what)
    return console.export_text()


def test_table_rows() -> None:
    text = _shown(table(TRIALS))
    assert "20%" in text
    assert "100%" in text
    assert "1M" in text
    assert "34,953" in text  # 10 x 2^20 tokens in 300 s
    assert "…" not in text


def test_bands_of_depth() -> None:
    assert found_in_band(TRIALS, "stream-lm", 4096, 4) == 1.0
    assert found_in_band(TRIALS, "stream-lm", 4096, 0) == 0.0
    assert found_in_band(TRIALS, "inf-llm", 1 << 20, 2) == 0.5
    assert found_in_band(TRIALS, "stream-lm", 1 << 20, 2) is None
    text = _shown(heat_maps(TRIALS))
    assert text.count("inf-llm") == 2
    assert text.count("stream-lm") == 1  # a length that was not run has no row


def test_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    plot(TRIALS, tmp_path / "map.png")
    assert (tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")


def test_a_picture_that_cannot_be_written_says_why(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    with pytest.raises(SettingsError, match=r"--plot .*a\.xyz cannot be written: .*xyz"):
        plot(TRIALS, tmp_path / "a.xyz")
