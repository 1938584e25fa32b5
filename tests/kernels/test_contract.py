"""Every kernel that can be named in a setting gives what the reference gives, through the door."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from inf_llm import kernels
from inf_llm.kernels import Band, Scoring, fused_cpu, reference, triton_impl
from inf_llm.variants import KERNEL
from tests.kernels.shapes import BANDS, SHAPES, Shape, check_call, random_call

every_band = pytest.mark.parametrize("band", BANDS.values(), ids=BANDS)
every_kernel = pytest.mark.parametrize("kernel", ["auto", *KERNEL])


def need(kernel: str, device: torch.device) -> None:
    """Skip, with the reason, where a kernel cannot run."""
    if kernel == "fused" and (device.type != "cpu" or not fused_cpu.available()):
        pytest.skip(f"the fused kernel does not run on {device.type}, or this torch lacks it")
    if kernel in ("varlen", "flash-attn"):
        pytest.skip("computes in half precision on CUDA, see test_flash")
    if kernel == "triton" and device.type == "cpu" and not triton_impl.interpreted():
        pytest.skip("runs in a process of its own, see test_triton_interpreted")


def check(kernel: str, shape: Shape, band: Band | None, device: torch.device) -> None:
    call = random_call(shape, device=device)
    for softcap in (None, 2.0):
        check_call(kernels, call, Scoring(0.25, softcap, kernel), band)


@every_kernel
@every_band
def test_bands(kernel: str, band: Band | None, device: torch.device) -> None:
    need(kernel, device)
    check(kernel, SHAPES["grouped"], band, device)


@every_kernel
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_shapes(kernel: str, shape: Shape, device: torch.device) -> None:
    need(kernel, device)
    check(kernel, shape, None, device)


@every_kernel
def test_parts_merge_into_the_whole(kernel: str, device: torch.device) -> None:
    """Whatever a kernel says of queries that see nothing in one part, the merge is right."""
    need(kernel, device)
    q, k, v = random_call(SHAPES["grouped"], device=device)
    scoring = Scoring(0.25, kernel=kernel)
    bands = (Band(13, 0, 6), Band(13, 6))
    o, lse = kernels.merge([kernels.attend(q, k, v, scoring, band) for band in bands])
    want, want_lse = reference.attend(q, k, v, scoring, Band(13))
    torch.testing.assert_close(o, want, atol=2e-5, rtol=2e-5)
    torch.testing.assert_close(lse, want_lse, atol=2e-5, rtol=2e-5)


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("triton") is None or triton_impl.interpreted(),
    reason="triton is not installed, or interprets already",
)
def test_triton_interpreted() -> None:
    here = Path(__file__)
    command = [sys.executable, "-m", "pytest", "-q", "-x", str(here), "-k", "triton"]
    result = subprocess.run(
        [*command, "-p", "no:cacheprovider"],
        env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        cwd=here.parent.parent.parent,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-2000:]
    assert "." in result.stdout.splitlines()[0]  # some ran
