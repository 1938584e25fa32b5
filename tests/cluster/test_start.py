"""What is wrong is said before replicas start, or as the replica says it."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace as Made
from typing import Any

import pytest

from inf_llm.cluster import start

COMMAND = [sys.executable, "-c", "from inf_llm.cli import main; main()", "serve", "--port", "0"]
TRACEBACK = """The deployment failed to start 1 times in a row.
  File "replica.py", line 37, in __init__
    model, tokenizer = load(config)
inf_llm.errors.ConfigError: model.path = '/none': there is no such folder
"""


def serving(message: str | None) -> Any:
    """Ray Serve, with what it says of a deployment."""
    there = {} if message is None else {start.NAME: Made(deployments={"a": Made(message=message)})}
    return Made(status=lambda: Made(applications=there))


def test_the_cause_is_the_replicas_own_word() -> None:
    assert start._cause(serving(TRACEBACK)) == "model.path = '/none': there is no such folder"
    assert start._cause(serving("")) == start._cause(serving(None)) == ""


def test_a_replica_that_does_not_start() -> None:
    pytest.importorskip("ray.serve", reason="needs the extra 'ray'")
    command = [*COMMAND, "--config", "demo", "--engine", "ray", "--memory-budget", "1MB"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 2
    assert "the replicas did not start: --memory-budget is 1.0 MB, but" in done.stderr
    assert "Traceback" not in done.stderr
