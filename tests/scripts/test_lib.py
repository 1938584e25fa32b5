"""What the set-up scripts say before they download."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

LIB = Path(__file__).parents[2] / "scripts" / "lib.sh"
INDEX = "https://download.pytorch.org/whl/cpu"


def notice(
    tmp_path: Path, *, system: str = "Linux", pip: str = "", torch: bool = False, gpu: bool = False
) -> str:
    """What `say_download` says on a machine made of stubs."""
    commands = tmp_path / "bin"
    commands.mkdir()
    asks_pip = f'if [ "$1" = -m ]; then printf "%s\\n" "{pip}"'
    for name, body in {
        "uname": f"echo {system}",
        "python": f"{asks_pip}; else exit {int(not torch)}; fi",
        **({"nvidia-smi": "true"} if gpu else {}),
    }.items():
        file = commands / name
        file.write_text(f"#!/bin/sh\n{body}\n")
        file.chmod(0o755)
    script = f'source "{LIB}"; VENV="{tmp_path}"; say_download "[dev]"'
    environment = {"PATH": f"{commands}:/usr/bin:/bin"}
    run = subprocess.run(
        ["bash", "-euc", script], capture_output=True, text=True, env=environment, check=True
    )
    assert "installing inf-llm[dev]" in run.stderr
    return run.stderr


def test_linux_without_an_index_of_cpu_builds_is_warned_of_several_gb(tmp_path: Path) -> None:
    text = notice(tmp_path)
    assert "several GB" in text
    assert f"PIP_EXTRA_INDEX_URL={INDEX}" in text
    assert "few hundred MB)" not in text


def test_with_a_gpu_the_default_build_is_right(tmp_path: Path) -> None:
    text = notice(tmp_path, gpu=True)
    assert "several GB" in text
    assert INDEX not in text


@pytest.mark.parametrize(
    "pip",
    [
        f"global.index-url='{INDEX}'",
        f"global.timeout='60'\n:env:.extra-index-url='https://example.org/simple {INDEX}/'",
        f"global.extra-index-url='\\\\nhttps://example.org/simple\\\\n{INDEX}'",
    ],
)
def test_where_pip_finds_the_cpu_build_it_is_a_few_hundred_mb(tmp_path: Path, pip: str) -> None:
    assert "a few hundred MB)" in notice(tmp_path, pip=pip)


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_a_folder_of_wheels_counts_by_what_is_in_it(tmp_path: Path, scheme: str) -> None:
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    (wheels / "torch-2.13.0+cpu-cp311-cp311-manylinux_2_28_x86_64.whl").touch()
    assert "a few hundred MB)" in notice(tmp_path, pip=f"global.find-links='{scheme}{wheels}'")


def test_a_folder_without_it_does_not_count(tmp_path: Path) -> None:
    assert "several GB" in notice(tmp_path, pip=f"global.find-links='{tmp_path}'")


@pytest.mark.parametrize("system", ["Darwin", "MINGW64_NT"])
def test_elsewhere_the_default_build_is_small(tmp_path: Path, system: str) -> None:
    assert "a few hundred MB)" in notice(tmp_path, system=system)


def test_nothing_is_said_of_sizes_where_torch_is_installed(tmp_path: Path) -> None:
    text = notice(tmp_path, torch=True)
    assert "already" in text
    assert "MB" not in text
    assert "GB" not in text
