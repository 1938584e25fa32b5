"""Files that are written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from inf_llm.atomic import write_atomically


def test_a_file_is_replaced(tmp_path: Path) -> None:
    file = tmp_path / "a"
    for content in (b"old", b"new"):
        write_atomically(file, content)
        assert file.read_bytes() == content
    assert list(tmp_path.iterdir()) == [file]


def test_a_failure_leaves_the_old_file_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"old")

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomically(file, b"new")
    assert [(each, each.read_bytes()) for each in tmp_path.iterdir()] == [(file, b"old")]


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_atomically(tmp_path / "no" / "a", b"")


@pytest.mark.skipif(os.name != "posix", reason="needs a system that knows owners")
@pytest.mark.parametrize("private", [False, True])
def test_a_private_file_is_for_its_owner(tmp_path: Path, private: bool) -> None:
    before = os.umask(0o022)
    try:
        write_atomically(tmp_path / "file", b"words", private)
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == (0o600 if private else 0o644)
