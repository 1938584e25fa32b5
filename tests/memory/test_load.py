"""Pages fetched by the device: what slots are tested for, through Triton's interpreter."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from inf_llm.memory.load import can_load

HERE = Path(__file__).parent
TESTS = [
    HERE / "interpreted.py",
    HERE / "test_device_cache.py",
    HERE.parent / "attention" / "test_inf_llm.py",
    HERE.parent / "attention" / "test_crop.py",
]


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
def test_interpreted() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
    result = subprocess.run(
        [*command, "-k", "slots or load or used or rounds", *map(str, TESTS)],
        env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        cwd=HERE.parent.parent,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-2000:]
    assert "." in result.stdout.splitlines()[0]  # some ran


def test_the_host_copies_where_the_device_cannot() -> None:
    assert not can_load(torch.device("cpu"), pinned=False)
