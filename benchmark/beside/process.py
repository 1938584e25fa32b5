"""Run a job in its own process, and stop the process when it takes too long."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmark.beside.job import Job
from inf_llm.cli.output import WAITING

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Limits:
    """Time limits of a subject in seconds; None for no limit.

    Attributes:
        first: limit from the loaded model to the first token.
        rest: limit from the first token to the end.
    """

    first: float | None = None
    rest: float | None = None


def run(job: Job, limits: Limits) -> dict[str, Any]:
    """Run a job in a process, and return its results.

    Returns:
        The figures. If the process was stopped, also `stopped`, the time limit in seconds, and
        `within`, the phase. If the process ended early, also `error`, the reason.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmark.beside.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=_environment(job.threads),
        start_new_session=os.name == "posix",
    )
    try:
        assert process.stdin is not None
        process.stdin.write(job.text() + "\n")
        process.stdin.close()
        figures = _followed(process, limits)
        if "stopped" not in figures:
            process.wait(60)  # time for the process to stop a server that it started
        return figures
    finally:
        _stop(process)


def _environment(threads: int) -> dict[str, str]:
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    count = str(threads)
    return {
        **os.environ,
        "PYTHONPATH": path,
        "OMP_NUM_THREADS": count,
        **WAITING,
        "TOKENIZERS_PARALLELISM": "false",
    }


def _followed(process: subprocess.Popen[str], limits: Limits) -> dict[str, Any]:
    """Follow the events of a process within the limits; return all figures in one dict."""
    events: queue.Queue[dict[str, Any] | None] = queue.Queue()
    errors: list[str] = []
    for work in (lambda: _read(process, events), lambda: _drain(process, errors)):
        threading.Thread(target=work, daemon=True).start()
    allowed = {"loading": None, "first": limits.first, "rest": limits.rest}
    after = {"ready": "first", "first": "rest", "done": "end"}
    figures: dict[str, Any] = {}
    phase, began = "loading", time.perf_counter()
    while phase != "end":
        limit = allowed[phase]
        timeout = None if limit is None else max(0.0, began + limit - time.perf_counter())
        try:
            event = events.get(timeout=timeout)
        except queue.Empty:
            return figures | {"stopped": limit, "within": phase}
        if event is None:
            message = " ".join("".join(errors[-20:]).split())[-300:]
            return figures | {"error": f"it ended with exit code {process.wait()}: {message}"}
        if phase == "rest":
            figures["rest"] = time.perf_counter() - began
        phase, began = after[event.pop("event")], time.perf_counter()
        figures |= event
    return figures


def _read(process: subprocess.Popen[str], events: queue.Queue[dict[str, Any] | None]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        events.put(json.loads(line))
    events.put(None)


def _drain(process: subprocess.Popen[str], errors: list[str]) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        errors.append(line)
        del errors[:-20]


def _stop(process: subprocess.Popen[str]) -> None:
    """Kill a process that still runs and, on POSIX, all processes of its group."""
    if os.name == "posix":
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.wait()
