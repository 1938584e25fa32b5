"""setup.py: one optional file for all processors and Pythons; without a compiler, none."""

from __future__ import annotations

import platform
from pathlib import Path
from types import ModuleType

import pytest

from tests.native.conftest import Build, compiles


@compiles
def test_every_processor_is_served_by_one_file(extension: ModuleType) -> None:
    assert extension.__file__ is not None
    assert ".abi3." in Path(extension.__file__).name
    names = list(extension.variants)
    assert names == [name for name in ("avx2", "baseline") if name in names]
    assert names[-1] == "baseline"


@compiles
@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="processors have no such list here")
@pytest.mark.skipif(platform.machine() != "x86_64", reason="others have one variant")
def test_variants_are_those_that_the_processor_can_run(extension: ModuleType) -> None:
    flags = set(Path("/proc/cpuinfo").read_text().partition("flags")[2].partition("\n")[0].split())
    needs = {"avx2": {"avx2", "fma"}}
    able = [name for name, wanted in needs.items() if wanted <= flags]
    assert list(extension.variants) == [*able, "baseline"]


@pytest.mark.parametrize("compiler", ["false", "a-compiler-that-is-not-there"])
def test_without_a_compiler(build: Build, compiler: str) -> None:
    assert build(CC=compiler) is None


def test_a_compiler_that_cannot_link(build: Build) -> None:
    assert build(CC="true", LDSHARED="false") is None
