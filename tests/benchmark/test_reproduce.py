"""benchmark/reproduce.py: the paper's rows, and a run of the smallest kind."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmark.reproduce import CONFIG, SMOKE, TABLE, Published, lines, main
from benchmark.scores import RunScores, TaskScore
from benchmark.tasks.infinitebench import INFLLM_7
from inf_llm.config import load_config


@pytest.mark.parametrize("key", TABLE)
def test_rows_of_the_paper(key: tuple[str, str]) -> None:
    """The settings are accepted, of the type that the method has, and the tasks are the mean's."""
    row = TABLE[key]
    config = load_config(CONFIG / f"{row.config}.yaml", list(row.settings))
    kind = {"infllm": "inf-llm", "lm-infinite": "infinite-lm", "streaming-llm": "stream-lm"}
    assert config.attention.type == kind[key[0]]
    assert set(row.scores) <= set(INFLLM_7)


def test_the_table() -> None:
    tasks = {"a": TaskScore("a", "some", 50.0, 4, 25.0, 0, 0)}
    found = RunScores(Path(), tasks, (), ())
    assert lines(found, ["a"], Published("", (), {"a": 60.0}, 61.0))[2:] == [
        "| a | 60.0 | 50.0 | 25.0 | 4 |",
        "| **mean** | 61.0 | 50.0 | | |",
    ]
    assert lines(found, ["a", "b"], Published(""))[2:] == [
        "| a | - | 50.0 | 25.0 | 4 |",
        "| b | - | not measured | | |",
    ]


def test_a_smoke_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "out")
    assert main(["streaming-llm", "--smoke", "--limit", "1", "--output_dir_path", out]) == 0
    printed = capsys.readouterr().out
    assert all(f"| {task} | - |" in printed for task in SMOKE)
    assert "smoke run" in printed


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--smoke", "--full"], "exclude each other"),
        (["--smoke", "--model", "x"], "--model is of the whole table"),
        (["--full", "--data_dir", "nowhere"], "no table"),
    ],
)
def test_bad_input(
    arguments: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["infllm", *arguments, "--output_dir_path", str(tmp_path / "out")]) == 2
    assert says in capsys.readouterr().err
