"""The Triton kernels, on a CPU through Triton's interpreter and compiled where there is a GPU."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from inf_llm import kernels
from inf_llm.errors import SettingsError
from inf_llm.kernels import Scoring, triton_impl
from tests.kernels.shapes import SHAPES, random_call

INSTALLED = importlib.util.find_spec("triton") is not None
TESTS = Path(__file__).with_name("interpreted.py")


def run_tests(interpret: bool) -> subprocess.CompletedProcess[str]:
    """The tests in a process of their own: Triton reads the variable when it is imported."""
    environment = {**os.environ, "TRITON_INTERPRET": "1" if interpret else "0"}
    environment["OMP_NUM_THREADS"] = "1"
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", str(TESTS)]
    root = TESTS.parent.parent.parent
    return subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True)


@pytest.mark.slow
@pytest.mark.skipif(not INSTALLED, reason="triton is not installed")
def test_interpreted() -> None:
    result = run_tests(interpret=True)
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-2000:]
    assert "." in result.stdout.splitlines()[0]  # some ran


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_compiled() -> None:
    result = run_tests(interpret=False)
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-2000:]
    assert "." in result.stdout.splitlines()[0]  # some ran


@pytest.mark.skipif(triton_impl.interpreted(), reason="the interpreter runs anywhere")
def test_refused_where_it_does_not_run() -> None:
    q, k, v = random_call(SHAPES["grouped"])
    why = "does not run on cpu" if INSTALLED else "needs the triton package"
    with pytest.raises(SettingsError, match=f"kernel = 'triton' {why}.*use 'auto' or 'reference'"):
        kernels.attend(q, k, v, Scoring(0.25, kernel="triton"))
