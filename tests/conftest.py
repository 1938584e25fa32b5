"""Fixtures of all tests."""

from __future__ import annotations

import signal

import pytest
import torch

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as under nohup; programs would inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)
torch.set_num_threads(1)  # tensors here are small: more threads only wait for each other


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test that hangs fails after the `timeout` of pyproject.toml. Those with real models have
    more time, and the slow ones any."""
    for item in items:
        for mark, seconds in (("real", 1800), ("slow", 0)):
            if item.get_closest_marker(mark):
                item.add_marker(pytest.mark.timeout(seconds))


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
