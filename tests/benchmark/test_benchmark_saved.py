"""`benchmark/saved.py`: its steps, here in one process, and its refusals."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmark import saved


@pytest.mark.parametrize("config", ["demo-inf-llm", "demo-stream-llm"])
def test_a_memory_answers_with_the_bits_of_the_text(tmp_path: Path, config: str) -> None:
    folder = str(tmp_path / "memory")
    read = saved._read(config, 1, folder, 2048, None)
    opened = saved._open(config, 1, folder)
    assert opened["logits"] == read["logits"]
    assert opened["answer"] == read["answer"]
    other = saved._read(config, 1, str(tmp_path / "other"), 1024, None)  # control: another text
    assert other["logits"] != read["logits"]


def test_blocks_on_a_disk_answer_with_the_same_bits(tmp_path: Path) -> None:
    near = saved._read("demo-inf-llm", 1, str(tmp_path / "memory"), 2048, None)
    far = saved._read("demo-inf-llm", 1, str(tmp_path / "memory"), 2048, 100_000)
    assert far["logits"] == near["logits"]
    assert " disk_bytes=0)" in near["held"]
    assert " disk_bytes=0)" not in far["held"]


def test_a_folder_of_other_files_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    assert saved.main(["--folder", str(tmp_path)]) == 2
    assert "holds no memory, but other files ('mine.txt')" in capsys.readouterr().err


def test_a_memory_that_is_there_is_only_opened(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "memory"
    saved._read("demo-inf-llm", 1, str(folder), 1024, None)
    before = {file: file.stat().st_mtime_ns for file in folder.iterdir()}
    assert saved.main(["--folder", str(folder), "--open", "1"]) == 0
    assert "first_token" in capsys.readouterr().out
    assert {file: file.stat().st_mtime_ns for file in folder.iterdir()} == before
