"""The extension, built from the sources of the checkout, whatever is installed."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from tests.modules import module_at

ROOT = Path(__file__).parents[2]

Build = Callable[..., Path | None]


@functools.cache
def _has_compiler() -> bool:
    command = os.environ.get("CC", sysconfig.get_config_var("CC") or "")
    words = [*command.split(), "-I", sysconfig.get_path("include"), "-E", "-x", "c", "-"]
    try:
        run = subprocess.run(words, input=b"#include <Python.h>", capture_output=True)
    except OSError:
        return False
    return run.returncode == 0


compiles = pytest.mark.skipif(not _has_compiler(), reason="no C compiler, or no Python.h")


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """Build a copy of the sources with given environment variables; return the file, or None."""

    def run(**environment: str) -> Path | None:
        source = tmp_path_factory.mktemp("source")
        shutil.copy(ROOT / "setup.py", source)
        ignored = shutil.ignore_patterns("*.so", "*.pyd", "__pycache__")
        shutil.copytree(ROOT / "inf_llm/native", source / "inf_llm/native", ignore=ignored)
        subprocess.run(
            [sys.executable, "setup.py", "build_ext", "--build-lib", "made"],
            cwd=source,
            env={**os.environ, **environment},
            check=True,
            capture_output=True,
        )
        made = [path for path in (source / "made").rglob("*") if path.is_file()]
        assert len(made) <= 1
        return made[0] if made else None

    return run


def load(path: Path) -> ModuleType:
    """Import the extension module in a file; the installed one stays as it is."""
    return module_at(path, "inf_llm.native._loops")


@pytest.fixture(scope="session")
def extension(build: Build) -> ModuleType:
    """The extension, built as an installation builds it."""
    if not _has_compiler():
        pytest.skip("no C compiler, or no Python.h")
    path = build()
    assert path is not None
    return load(path)
