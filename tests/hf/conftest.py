"""Fixtures of the tests with transformers' models."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from tests.gguf_files import chat_model, write_gguf


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


@pytest.fixture(scope="package")
def model() -> Any:
    """What `file` holds; a module with other models has a fixture of its own."""
    return chat_model()


@pytest.fixture(scope="package")
def file(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GGUF file with a chat template, which tests only read."""
    return write_gguf(tmp_path_factory.mktemp("gguf") / "model.gguf", model)
