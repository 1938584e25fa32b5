"""Fixtures of the tests with transformers' models."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import transformers


@pytest.fixture(autouse=True, scope="package")
def _one_thread() -> Iterator[None]:
    """Models of a few thousand parameters, whose threads would only wait for each other.

    On a busy machine that waiting is twenty times longer than the work.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    yield
    torch.set_num_threads(before)
