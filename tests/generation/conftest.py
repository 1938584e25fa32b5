"""A tiny model of every attention type."""

from __future__ import annotations

from typing import Any

import pytest

from tests.checkpoints import memory_model, model, script  # noqa: F401


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return script().make_tokenizer()


@pytest.fixture(scope="module")
def bare(tokenizer: Any) -> Any:
    """The model as it is, not patched."""
    return script().make_model(len(tokenizer))
