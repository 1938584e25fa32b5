"""The library is compiled once, by whoever comes first; without it everything still works."""

from __future__ import annotations

import ctypes
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from inf_llm.native import library as module

fresh = module.library.__wrapped__

compiles = pytest.mark.skipif(module.library() is None, reason="there is no C compiler")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache; the folder that the library is kept in."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "inf-llm" / "native"


@compiles
def test_compiled_once_and_kept(cache: Path) -> None:
    assert fresh() is not None
    (kept,) = cache.iterdir()
    written = kept.stat().st_mtime_ns
    found = fresh()
    assert isinstance(found, ctypes.CDLL)
    assert found.ask_sketch
    assert found.best_blocks
    assert list(cache.iterdir()) == [kept]
    assert kept.stat().st_mtime_ns == written


@compiles
def test_several_at_once(cache: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: fresh(), range(4)))
    assert None not in found
    assert len(list(cache.iterdir())) == 1


@compiles
def test_another_source_is_another_library(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh()
    changed = tmp_path / "changed.c"
    changed.write_text(module._SOURCES[0].read_text() + "\nint answer(void) { return 42; }\n")
    monkeypatch.setattr(module, "_SOURCES", (changed,))
    found = fresh()
    assert found is not None
    assert found.answer() == 42
    assert len(list(cache.iterdir())) == 2


@pytest.mark.usefixtures("cache")
def test_nobody_wants_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INF_LLM_NATIVE", "0")
    assert fresh() is None


@pytest.mark.usefixtures("cache")
def test_no_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert fresh() is None


def test_a_compiler_that_fails(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler = tmp_path / "bin" / "cc"
    compiler.parent.mkdir()
    compiler.write_text("#!/bin/sh\nexit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("PATH", str(compiler.parent))
    assert fresh() is None
    assert list(cache.iterdir()) == []


@compiles
def test_a_compiler_without_threads(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_THREADS", (("-fno-such-flag",), ()))
    assert fresh() is not None
    assert len(list(cache.iterdir())) == 1


@compiles
def test_a_damaged_library(cache: Path) -> None:
    """It is not loaded; the next flags are tried."""
    fresh()
    (kept,) = cache.iterdir()
    kept.write_bytes(b"no library")
    assert fresh() is not None
    kept.unlink()


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="there are no such rights here")
def test_a_folder_that_others_can_write_to(cache: Path) -> None:
    cache.mkdir(parents=True)
    cache.chmod(0o777)
    assert fresh() is None
    cache.chmod(0o700)
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700


def test_nowhere_to_keep_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert fresh() is None
