"""`benchmark/saved.py`: its steps, here in one process, and its refusals."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmark import saved


def test_a_memory_answers_with_the_bits_of_the_text(tmp_path: Path) -> None:
    folder = str(tmp_path / "memory")
    read = saved._read(1, folder, 2048, None)
    opened = saved._open(1, folder)
    assert opened["logits"] == read["logits"]
    assert opened["answer"] == read["answer"]
    on_disk = saved._read(1, folder, 2048, 100_000)
    assert on_disk["logits"] == read["logits"]
    assert " disk_bytes=0)" in read["held"]
    assert " disk_bytes=0)" not in on_disk["held"]
    other = saved._read(1, str(tmp_path / "other"), 1024, None)  # control: another text
    assert other["logits"] != read["logits"]


def test_a_folder_of_other_files_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    assert saved.main(["--folder", str(tmp_path)]) == 2
    assert "holds no memory, but other files ('mine.txt')" in capsys.readouterr().err
