"""scripts/compare_speed.py: two versions in turns, the median of their ratios, and going on."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "scripts" / "compare_speed.py"
STUB = """\
#!{python}
import json, sys
from pathlib import Path
log = Path({log!r})
with log.open("a") as file:
    file.write({name!r} + "\\n")
runs = log.read_text().split().count({name!r})
ms = {ms}[runs - 1]
row = {{"length": 8192, "prefill_tok_s": 1000 / ms, "decode_ms": ms}}
facts = {{"rows": [row], "environment": {{"peak_rss_bytes": 100}}}}
Path(sys.argv[sys.argv.index("--json") + 1]).write_text(json.dumps(facts))
"""


def version(folder: Path, name: str, ms: list[float]) -> Path:
    """A checkout whose Python writes figures instead of measuring them."""
    python = folder / name / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    log = str(folder / "log")
    python.write_text(STUB.format(python=sys.executable, log=log, name=name, ms=ms))
    python.chmod(0o755)
    (folder / name / ".git").mkdir()  # so that no repository around it is asked
    return folder / name


def compare(folder: Path, old: Path, new: Path) -> subprocess.CompletedProcess[str]:
    (folder / "work").mkdir(exist_ok=True)
    command = [sys.executable, str(SCRIPT), str(old), str(new), "--pairs", "3"]
    command += ["--work", str(folder / "work")]
    return subprocess.run(command, capture_output=True, text=True)


def test_pairs_take_turns_and_are_kept(tmp_path: Path) -> None:
    old = version(tmp_path, "old", [10.0, 10.0, 40.0])
    new = version(tmp_path, "new", [10.4, 99.0, 41.0])
    run = compare(tmp_path, old, new)
    assert run.returncode == 0, run.stderr
    assert "decode at 8192           new / old 1.040  (1.025 - 9.900)" in run.stdout
    assert "most memory              new / old 1.000" in run.stdout
    order = (tmp_path / "log").read_text().split()
    assert order == ["old", "new", "new", "old", "old", "new"]
    again = compare(tmp_path, old, new)
    assert again.stdout == run.stdout
    assert (tmp_path / "log").read_text().split() == order


def test_a_slower_version_is_said(tmp_path: Path) -> None:
    run = compare(
        tmp_path, version(tmp_path, "old", [10.0] * 3), version(tmp_path, "new", [11] * 3)
    )
    assert run.returncode == 1
    assert "limit 1.05: missed" in run.stdout


def test_a_run_that_failed_is_not_kept(tmp_path: Path) -> None:
    old, new = version(tmp_path, "old", [10.0] * 3), version(tmp_path, "new", [])
    assert compare(tmp_path, old, new).returncode == 1
    kept = [json.loads(file.read_text()) for file in (tmp_path / "work").glob("*.json")]
    assert len(kept) == 1
