"""Tiny models for tests, made by the project's own script."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import inf_llm
from inf_llm.config import ModelConfig, RunConfig
from inf_llm.settings import OriginSettings
from tests.modules import module_at

SCRIPT = Path(__file__).parent.parent / "scripts" / "make_tiny_checkpoint.py"

SETTINGS: dict[str, dict[str, Any]] = {
    "origin": {},
    "infinite-lm": {"n_init": 8, "n_local": 64},
    "stream-lm": {"n_init": 8, "n_local": 64},
    "inf-llm": {
        "n_init": 8,
        "n_local": 64,
        "block_size": 16,
        "topk": 3,
        "repr_topk": 2,
        "max_cached_block": 4,
        "exc_block_size": 32,
    },
}
"""Settings of every type that a text of a few hundred tokens goes far beyond."""


def script() -> ModuleType:
    """The script as a module."""
    return module_at(SCRIPT, "make_tiny_checkpoint")


def write_config(file: Path, kind: str, path: str, **top: Any) -> Path:
    """A YAML file with the settings of a type."""
    settings = {"type": kind, "path": path, **SETTINGS[kind]}
    lines = ["model:", *(f"  {key}: {value}" for key, value in settings.items())]
    lines += [f"{key}: {value}" for key, value in ({"chunk_size": 128} | top).items()]
    file.write_text("\n".join(lines) + "\n")
    return file


@pytest.fixture(params=SETTINGS)
def model(request: pytest.FixtureRequest, bare: Any) -> Iterator[Any]:
    """The model `bare` with each type in turn."""
    yield inf_llm.patch(bare, type=request.param, **SETTINGS[request.param])
    inf_llm.unpatch(bare)


@pytest.fixture
def memory_model(bare: Any) -> Iterator[Any]:
    """The model `bare` with an inf-llm memory."""
    yield inf_llm.patch(bare, type="inf-llm", **SETTINGS["inf-llm"])
    inf_llm.unpatch(bare)


def named(path: str | Path, **more: Any) -> RunConfig:
    own = {key: more.pop(key) for key in list(more) if key == "conv_type"}
    return RunConfig(ModelConfig(str(path), **more), OriginSettings(), **own)
