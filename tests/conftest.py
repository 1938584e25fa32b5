"""Fixtures of all tests."""

from __future__ import annotations

import signal

import pytest
import torch

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as under nohup; programs would inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)
torch.set_num_threads(1)  # tensors here are small: more threads only wait for each other


@pytest.fixture(autouse=True)
def _seed() -> None:
    """Random numbers of a test do not depend on the tests that ran before it."""
    torch.manual_seed(0)


def _devices() -> list[object]:
    cuda = torch.cuda.is_available()
    skip = pytest.mark.skipif(not cuda, reason="no CUDA device here")
    return [pytest.param("cpu"), pytest.param("cuda", marks=[skip, pytest.mark.cuda])]


@pytest.fixture(params=_devices())
def device(request: pytest.FixtureRequest) -> torch.device:
    """The CPU always, and a CUDA device when there is one."""
    return torch.device(request.param)
