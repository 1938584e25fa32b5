"""The shell scripts: arguments, and what they call."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmark import lm_eval_adapter

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


def bash(name, *arguments, **environment):
    return subprocess.run(
        ["bash", str(SCRIPTS / name), *arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("script", "arguments", "says"),
    [
        ("download.sh", ["longbnch"], "'longbnch' is not known; accepted: longbench"),
        ("multiprocessing-benchmark.sh", [], "--config_path is needed"),
        ("multiprocessing-benchmark.sh", ["-f", "x", "-w", "zero"], "not a number from 1"),
        ("multiprocessing-benchmark.sh", ["--wrld_size", "2"], "'--wrld_size' is not known"),
    ],
)
def test_bad_arguments(script, arguments, says):
    done = bash(script, *arguments)
    assert done.returncode == 2
    assert says in done.stderr


@pytest.mark.parametrize(
    ("script", "arguments"),
    [
        ("download.sh", ["longbench"]),
        ("longbench.sh", []),
        ("infinitebench.sh", []),
        ("multiprocessing-benchmark.sh", ["-f", "c.yaml"]),
    ],
)
def test_a_python_without_the_packages_is_not_taken(script, arguments, tmp_path):
    """A copy of the scripts, which has no .venv, with a Python on PATH that has no packages."""
    (tmp_path / "scripts").mkdir()
    for name in ("lib.sh", script):
        shutil.copy(SCRIPTS / name, tmp_path / "scripts" / name)
    bare = tmp_path / "bin"
    bare.mkdir()
    for name in ("python", "python3"):
        (bare / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" -S -E "$@"\n')
        (bare / name).chmod(0o755)
    done = subprocess.run(
        ["bash", str(tmp_path / "scripts" / script), *arguments],
        env={"PATH": f"{bare}:{os.defpath}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "no Python here has the packages of requirements.txt" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture
def recorder(tmp_path):
    """A stand-in for python that writes down how it was called."""
    path = tmp_path / "python"
    path.write_text(f'#!/bin/sh\necho "$CUDA_VISIBLE_DEVICES|$*" >> {tmp_path}/calls\n')
    path.chmod(0o755)
    return path


def calls(recorder):
    return (recorder.parent / "calls").read_text().splitlines()


@pytest.mark.parametrize(("script", "tasks"), [("longbench.sh", 16), ("infinitebench.sh", 6)])
def test_wrappers_predict_and_score(recorder, script, tasks):
    done = bash(script, "c.yaml", "out", "--limit", "2", PYTHON=str(recorder))
    assert done.returncode == 0, done.stderr
    predict, score = calls(recorder)
    assert "pred.py --config_path c.yaml --output_dir_path out" in predict
    assert predict.endswith("--limit 2")
    assert len(predict.split("--datasets ")[1].split(" ")[0].split(",")) == tasks
    assert score.endswith("eval.py --dir_path out")


def test_one_process_a_gpu(recorder):
    arguments = ("-w", "2", "-f", "c.yaml", "-d", "passkey", "-o", "out", "--", "--limit", "3")
    done = bash("multiprocessing-benchmark.sh", *arguments, PYTHON=str(recorder))
    assert done.returncode == 0, done.stderr
    made = sorted(calls(recorder)[:2])
    assert [call.split("|")[0] for call in made] == ["0", "1"]
    assert all("--world_size 2 --rank" in call and call.endswith("--limit 3") for call in made)
    assert "merge.py" in calls(recorder)[2]
    assert "eval.py --dir_path out" in calls(recorder)[3]


def test_lm_eval_is_asked_for_by_name(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "lm_eval.models.huggingface", None)
    assert lm_eval_adapter.main() == 2
    error = capsys.readouterr().err
    assert "needs the package 'lm_eval'" in error
    assert "pip install 'inf-llm[lm-eval]'" in error
