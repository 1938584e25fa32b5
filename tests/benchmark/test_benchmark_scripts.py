"""The shell scripts: arguments, a missing network, and what they call."""

from __future__ import annotations

import functools
import http.server
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from benchmark import lm_eval_adapter

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
NOWHERE = {"RAW_ENDPOINT": "http://127.0.0.1:9", "HF_ENDPOINT": "http://127.0.0.1:9"}


def bash(name, *arguments, **environment):
    return subprocess.run(
        ["bash", str(SCRIPTS / name), *arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_download_without_a_network_says_so(tmp_path):
    done = bash("download.sh", "longbench", "--data_dir", str(tmp_path), **NOWHERE)
    assert done.returncode == 3
    assert "cannot reach http://127.0.0.1:9: a network is needed" in done.stderr


def test_download_fetches_checks_and_does_not_fetch_twice(tmp_path):
    home = tmp_path / "home"
    for path in ("OpenBMB/InfiniteBench/main/src/prompt.py",):
        (home / path).parent.mkdir(parents=True)
        (home / path).write_text("gpt4_templates = {}\n")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(home))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        more = {"RAW_ENDPOINT": url, "HF_ENDPOINT": url}
        arguments = ("infinitebench", "--data_dir", str(tmp_path / "data"))
        first = bash("download.sh", *arguments, **more)
        again = bash("download.sh", *arguments, **more)
        server.shutdown()
    # The second file is not at this home: the first is kept, and the script says what is missing.
    assert first.returncode == again.returncode == 1
    assert "none of the addresses above has infllm_prompts.json" in first.stderr
    assert "prompt.py is there" in again.stdout
    folder = tmp_path / "data" / "infinitebench"
    assert (folder / "SHA256SUMS").read_text().endswith("  prompt.py\n")


@pytest.mark.parametrize(
    ("script", "arguments", "says"),
    [
        ("download.sh", ["longbnch"], "'longbnch' is not known; accepted: longbench"),
        ("download.sh", ["--data_dir"], "needs a folder"),
        ("multiprocessing-benchmark.sh", [], "--config_path is needed"),
        ("multiprocessing-benchmark.sh", ["-f", "x", "-w", "zero"], "not a number from 1"),
        ("multiprocessing-benchmark.sh", ["--wrld_size", "2"], "'--wrld_size' is not known"),
    ],
)
def test_bad_arguments(script, arguments, says):
    done = bash(script, *arguments)
    assert done.returncode == 2
    assert says in done.stderr


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
