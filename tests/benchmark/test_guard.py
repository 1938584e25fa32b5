"""What stands around the commands that measure."""

from __future__ import annotations

import os
import subprocess
import sys

CODE = "from benchmark.guard import guarded; guarded(lambda: print('12 µs ± 1'))"


def test_a_letter_that_cannot_be_shown_loses_no_figure() -> None:
    plain = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    run = subprocess.run([sys.executable, "-c", CODE], env=plain, capture_output=True, check=True)
    assert run.stdout == b"12 ?s ? 1\n"
