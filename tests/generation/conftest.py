"""A tiny model of every attention type."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import inf_llm
from tests.checkpoints import SETTINGS, script


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return script().make_tokenizer()


@pytest.fixture(scope="module")
def bare(tokenizer: Any) -> Any:
    """The model as it is, not patched."""
    return script().make_model(len(tokenizer))


@pytest.fixture(params=SETTINGS)
def model(request: pytest.FixtureRequest, bare: Any) -> Iterator[Any]:
    """The model with each type in turn."""
    yield inf_llm.patch(bare, type=request.param, **SETTINGS[request.param])
    inf_llm.unpatch(bare)


@pytest.fixture
def memory_model(bare: Any) -> Iterator[Any]:
    """The model with an inf-llm memory."""
    yield inf_llm.patch(bare, type="inf-llm", **SETTINGS["inf-llm"])
    inf_llm.unpatch(bare)
