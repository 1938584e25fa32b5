"""`benchmark/peers.py`: rows that are kept, what is refused, and who is stopped."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import psutil
import pytest

from benchmark import peers
from benchmark.beside.job import Job
from benchmark.beside.process import ROOT, Limits, run
from inf_llm.hf.load import DEMO
from tests.benchmark.peer_jobs import FAKE, job_of

pytestmark = pytest.mark.skipif(
    not (DEMO / "model.safetensors").exists(), reason="no demo model here"
)
SMALL = ["--lengths", "1k", "--runs", "1", "--threads", "1", "--questions", "2"]


@pytest.fixture
def model(tmp_path: Path) -> str:
    """The embedded model, with a file beside it that stands for its GGUF file."""
    folder = tmp_path / "model"
    shutil.copytree(DEMO, folder)
    (folder / "model.gguf").write_bytes(b"GGUF")
    return f"demo-inf-llm={folder}"


@pytest.fixture
def requested(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Limits]]:
    """What is measured instead: nothing; subject and limits are noted."""
    noted: list[tuple[str, Limits]] = []

    def measured(job: Job, limits: Limits) -> dict[str, Any]:
        noted.append((job.subject, limits))
        if job.subject == "transformers":
            return {"how": {}, "stopped": limits.first, "within": "first"}
        return {
            "first": 4.0,
            "first_cpu": 2.0,
            "second": 1.0,
            "decode": 0.01,
            "rest": 7.0,
            "peak": 5_000_000,
            "nats": [0.5, 1.5],
            "found": [True, False],
        }

    monkeypatch.setattr(peers, "run", measured)
    return noted


def _main(out: Path, *more: str) -> int:
    return peers.main([*SMALL, "--output_dir_path", str(out), *more])


def _rows(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "peers.jsonl").read_text().splitlines()]


def test_subjects_in_processes_of_their_own(
    tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    names = "inf-llm,llama.cpp-f16"
    more = ["--model", model, "--subjects", names, "--llama-server", FAKE]
    assert _main(tmp_path / "out", *more) == 0
    own, server = _rows(tmp_path / "out")
    assert own["subject"] == "inf-llm"
    assert own["first"] > 0
    assert own["decode"] > 0
    assert own["peak"] > 50_000_000
    assert all(value > 0 for value in own["nats"])
    assert server["nats"] == pytest.approx([0.5, 0.5])
    assert "--cache-type-k f16" in server["how"]["flags"]
    table = capsys.readouterr().out
    assert "| `llama.cpp-f16` |" in table
    assert "cores" in table.splitlines()[0]


def test_a_run_goes_on_where_it_was(tmp_path: Path, requested: list[tuple[str, Limits]]) -> None:
    assert _main(tmp_path, "--subjects", "inf-llm") == 0
    assert _main(tmp_path, "--subjects", "bm25,inf-llm") == 0
    assert [name for name, _ in requested] == ["inf-llm", "bm25"]
    assert _main(tmp_path, "--subjects", "bm25,inf-llm", "--runs", "2") == 0
    assert [name for name, _ in requested[2:]] == ["inf-llm", "bm25"]


def test_names_of_models(tmp_path: Path, requested: list[tuple[str, Limits]]) -> None:
    named = "qwen2.5-0.5b", str(ROOT / "config" / "demo-inf-llm.yaml")
    models = [part for name in named for part in ("--model", f"{name}={DEMO}")]
    assert _main(tmp_path, "--subjects", "inf-llm", *models) == 0
    assert [row["model"] for row in _rows(tmp_path)] == ["qwen2.5-0.5b", "demo-inf-llm"]


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (("--answer", "40"), "answer"),
        (("--seed", "3"), "seed"),
        (("model.topk=8",), "overrides"),
    ],
)
def test_other_settings_are_refused(
    tmp_path: Path,
    requested: list[tuple[str, Limits]],
    capsys: pytest.CaptureFixture[str],
    other: tuple[str, ...],
    named: str,
) -> None:
    assert _main(tmp_path, "--subjects", "inf-llm") == 0
    assert _main(tmp_path, "--subjects", "inf-llm", *other) == 2
    assert named in capsys.readouterr().err
    assert len(requested) == 1


def test_a_subject_is_stopped_at_ten_times_and_not_run_again(
    tmp_path: Path, requested: list[tuple[str, Limits]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert _main(tmp_path, "--subjects", "transformers,inf-llm", "--runs", "2") == 0
    assert requested == [
        ("inf-llm", Limits()),
        ("transformers", Limits(40.0, 70.0)),
        ("inf-llm", Limits()),
    ]
    assert [row.get("stopped") for row in _rows(tmp_path)] == [None, 40.0, None, 40.0]
    table = capsys.readouterr().out
    assert "| `transformers` | more than 10x |" in table
    assert "| 2 of 4 |" in table


def test_an_absent_subject_is_named(
    tmp_path: Path, requested: list[tuple[str, Limits]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert _main(tmp_path, "--subjects", "inf-llm,llama.cpp-q8") == 0
    assert "`llama.cpp-q8` absent: --llama-server was not given" in capsys.readouterr().out
    assert _main(tmp_path, "--subjects", "llama.cpp-q8", "--llama-server", FAKE) == 0
    assert "has no GGUF file" in capsys.readouterr().out


def test_table_and_picture_of_rows(
    tmp_path: Path, requested: list[tuple[str, Limits]], capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "peers.png"
    assert _main(tmp_path / "none", "--table") == 2
    assert "no rows" in capsys.readouterr().err
    assert _main(tmp_path, "--subjects", "inf-llm,bm25") == 0
    first = capsys.readouterr().out
    pytest.importorskip("matplotlib")
    assert _main(tmp_path, "--table", "--plot", str(picture)) == 0
    assert capsys.readouterr().out == first
    assert picture.stat().st_size > 1000
    assert "| 4.0 (1x, cpu 1x) |" in first


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (("--subjects", "lama"), "lama"),
        (("--lengths", "long"), "--lengths"),
        (("--tasks", "nedle"), "nedle"),
        (("--runs", "0"), "--runs"),
        (("--model", "demo-stream-llm"), "stream-llm"),
        (("--qa-file", "q.jsonl"), "--text"),
    ],
)
def test_bad_input(
    tmp_path: Path,
    requested: list[tuple[str, Limits]],
    capsys: pytest.CaptureFixture[str],
    wrong: tuple[str, ...],
    named: str,
) -> None:
    assert _main(tmp_path, *wrong) == 2
    errors = capsys.readouterr().err
    assert errors.startswith("error: ")
    assert named in errors
    assert not requested


def test_a_process_is_stopped_with_what_it_started(tmp_path: Path, model: str) -> None:
    pid = tmp_path / "pid"
    server = f"{FAKE} --sleep 3600 --pid {pid}"
    figures = run(job_of(model, "llama.cpp-f16", server=server), Limits(0.5))
    assert (figures["stopped"], figures["within"]) == (0.5, "first")
    assert "--flash-attn on" in figures["how"]["flags"]
    statuses = {process.pid: process.status() for process in psutil.process_iter()}
    assert statuses.get(int(pid.read_text()), "none") in ("none", psutil.STATUS_ZOMBIE)


def test_a_process_that_fails_says_why(model: str) -> None:
    figures = run(job_of(model, "unknown"), Limits())
    assert "exit code 1: " in figures["error"]
    assert "KeyError: 'unknown'" in figures["error"]
