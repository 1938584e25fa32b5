"""`inf-llm memory`: list, info, verify, rm."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from inf_llm.saved.manifest import read_manifest
from tests.cli.conftest import Invoke


@pytest.fixture
def saved(invoke: Invoke, config: Path, book: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "memories" / "book"
    done = invoke("read", "-c", config, "-f", book, "--save", folder)
    assert done.exit_code == 0, done.stderr
    return folder


def test_list(invoke: Invoke, saved: Path) -> None:
    done = invoke("memory", "list", saved.parent)
    assert str(saved) in done.stdout
    assert "tokens" in done.stdout
    (saved.parent / "none").mkdir()
    assert "no memories here" in invoke("memory", "list", saved.parent / "none").stderr
    refused = invoke("memory", "list", saved.parent / "nowhere")
    assert (refused.exit_code, "is no folder" in refused.stderr) == (2, True)


def test_info(invoke: Invoke, saved: Path, book: Path) -> None:
    done = invoke("memory", "info", saved)
    assert done.exit_code == 0
    for part in (str(book), "type = inf-llm", "float32", "blocks"):
        assert part in done.stdout


def test_info_of_odd_fields(invoke: Invoke, saved: Path) -> None:
    manifest = read_manifest(saved)
    odd = {"attention": "x", "weights": None}
    replace(manifest, identity=odd, note={"text": "\x1b[31mred"}).write(saved)
    done = invoke("memory", "info", saved)
    assert done.exit_code == 0, done.stderr
    assert "?[31mred" in done.stdout


def test_verify_finds_a_flipped_bit_in_any_segment(invoke: Invoke, saved: Path) -> None:
    assert invoke("memory", "verify", saved).stdout == f"{saved}: whole\n"
    for path in sorted(saved.glob("*.safetensors")):
        content = path.read_bytes()
        middle = len(content) // 2
        path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
        done = invoke("memory", "verify", saved)
        assert done.exit_code == 2
        assert f"{path.name} is damaged" in done.stderr
        path.write_bytes(content)


def test_rm_leaves_what_is_not_a_memory(invoke: Invoke, saved: Path) -> None:
    (saved / "notes.txt").write_text("mine")
    assert invoke("memory", "rm", saved).exit_code == 0
    assert [file.name for file in saved.iterdir()] == ["notes.txt"]
    done = invoke("memory", "rm", saved)
    assert done.exit_code == 2
    assert "holds no memory" in done.stderr


def test_rm_takes_the_folder_too(invoke: Invoke, saved: Path) -> None:
    assert invoke("memory", "rm", saved).exit_code == 0
    assert not saved.exists()
