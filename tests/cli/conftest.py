"""The command line on a tiny checkpoint, in this process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from inf_llm.cli import app
from tests.checkpoints import SETTINGS, script, write_config

Invoke = Callable[..., Result]


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny model and its tokenizer."""
    folder = tmp_path_factory.mktemp("model")
    script().main(folder)
    return folder


@pytest.fixture(scope="session")
def configs(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A configuration of every type."""
    folder = tmp_path_factory.mktemp("config")
    return {kind: write_config(folder / f"{kind}.yaml", kind, str(checkpoint)) for kind in SETTINGS}


@pytest.fixture
def config(configs: dict[str, Path]) -> Path:
    """The configuration of inf-llm."""
    return configs["inf-llm"]


@pytest.fixture
def book(tmp_path: Path) -> Path:
    """A text far longer than the window."""
    file = tmp_path / "book.txt"
    file.write_text("The quick brown fox jumps over the lazy dog. " * 16)
    return file


@pytest.fixture
def invoke() -> Invoke:
    """Run `inf-llm` with the given words."""

    def run(*words: Any, **options: Any) -> Result:
        return CliRunner().invoke(app, [str(word) for word in words], **options)

    return run
