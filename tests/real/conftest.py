"""Fixtures of the tests with real models."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import inf_llm
from inf_llm.hf.patch import patched
from tests.real.models import LONG, MODELS, load


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every test in this folder is marked."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.real)


@pytest.fixture(autouse=True, scope="package")
def _all_threads() -> Iterator[None]:
    """These models are large enough for threads to help."""
    before = torch.get_num_threads()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1))
    transformers.logging.set_verbosity_error()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def lent() -> Iterator[Callable[[str, str], Any]]:
    """Lends models; each is unpatched again, with the attention it had."""
    taken: list[tuple[Any, str]] = []

    def lend(name: str, dtype: str) -> Any:
        model = load(name, dtype)
        taken.append((model, model.config._attn_implementation))
        return model

    yield lend
    for model, attention in taken:
        if patched(model) is not None:
            inf_llm.unpatch(model)
        model.set_attn_implementation(attention)


@pytest.fixture
def write_config(tmp_path: Path) -> Callable[..., Path]:
    """Writes a YAML file for a model: its name, a type, and what else stands at the top."""

    def write(name: str, kind: str = "inf-llm", dtype: str = "auto", **top: Any) -> Path:
        rows = {"type": kind, "path": MODELS[name].folder, "dtype": dtype, **LONG[kind]}
        lines = ["model:", *(f"  {key}: {value}" for key, value in rows.items())]
        lines += [f"{key}: {value}" for key, value in ({"chunk_size": 1024} | top).items()]
        file = tmp_path / f"{name}-{kind}.yaml"
        file.write_text("\n".join(lines) + "\n")
        return file

    return write
