"""One optional file is built, for all processors and Pythons; without a compiler, none."""

from __future__ import annotations

import platform
import shlex
import sysconfig
from pathlib import Path
from types import ModuleType

import pytest

from tests.native.conftest import Build, compiles, load

CC = sysconfig.get_config_var("CC") or ""


@compiles
def test_every_processor_is_served_by_one_file(extension: ModuleType) -> None:
    assert extension.__file__ is not None
    assert ".abi3." in Path(extension.__file__).name
    names = list(extension.variants)
    assert names == [name for name in ("avx512", "avx2", "baseline") if name in names]
    assert names[-1] == "baseline"


@compiles
@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="processors have no such list here")
@pytest.mark.skipif(platform.machine() != "x86_64", reason="others have one variant")
def test_the_processor_can_do_what_its_variants_ask_for(extension: ModuleType) -> None:
    flags = set(Path("/proc/cpuinfo").read_text().partition("flags")[2].partition("\n")[0].split())
    needs = {"avx512": {"avx512bw", "avx512vl", "avx512_vnni"}, "avx2": {"avx2", "fma"}}
    able = [name for name, wanted in needs.items() if wanted <= flags]
    assert list(extension.variants) == [*able, "baseline"]


@compiles
def test_a_compiler_without_openmp(build: Build, tmp_path: Path) -> None:
    """As Apple's: it knows the vector loops, but not the threads."""
    compiler = tmp_path / "cc"
    compiler.write_text(
        '#!/bin/sh\nfor word; do [ "$word" = -fopenmp ] && exit 1; done\n' + f'exec {CC} "$@"\n'
    )
    compiler.chmod(0o755)
    path = build(CC=str(compiler), LDSHARED=shlex.join([str(compiler), "-shared"]))
    assert path is not None
    assert load(path).variants
    assert b"libgomp" not in path.read_bytes()


@pytest.mark.parametrize("compiler", ["false", "a-compiler-that-is-not-there"])
def test_without_a_compiler(build: Build, compiler: str) -> None:
    assert build(CC=compiler) is None


def test_a_compiler_that_cannot_link(build: Build) -> None:
    assert build(CC="true", LDSHARED="false") is None
