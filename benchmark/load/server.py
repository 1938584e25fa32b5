"""A server process for the time of a measurement."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from inf_llm.cli.output import WAITING
from inf_llm.errors import InfLLMError

_READY = re.compile(r"serving (\S+) at (http://\S+?),")


@dataclass(frozen=True)
class Server:
    """A server that can be reached.

    Attributes:
        address: of it.
        model: name of its model.
        process: number of the process.
    """

    address: str
    model: str
    process: int

    def memory(self, name: str = "VmRSS") -> int | None:
        """Bytes that the system counts, "VmHWM" for the most so far; None where it does not say."""
        found = self._status(name)
        return None if found is None else 1024 * found

    def threads(self) -> int | None:
        """Threads of the process; None where the system does not say."""
        return self._status("Threads")

    def open_files(self) -> int | None:
        """Descriptors that it holds; None where the system does not say."""
        try:
            return len(list(Path(f"/proc/{self.process}/fd").iterdir()))
        except OSError:
            return None

    def cpu_seconds(self) -> float:
        """Time that processors have spent on it."""
        used = psutil.Process(self.process).cpu_times()
        return float(used.user + used.system)

    def _status(self, name: str) -> int | None:
        try:
            lines = Path(f"/proc/{self.process}/status").read_text().splitlines()
        except OSError:
            return None
        return next((int(row.split()[1]) for row in lines if row.startswith(f"{name}:")), None)


@contextmanager
def serving(options: Sequence[str], threads: int) -> Iterator[Server]:
    """`inf-llm serve` with some options, on a free port, within the statement.

    Raises:
        InfLLMError: it did not start; the message is what it said.
    """
    command = [sys.executable, "-c", "from inf_llm.cli import main; main()", "serve"]
    process = subprocess.Popen(
        [*command, "--port", "0", *options],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env={**WAITING, **os.environ, "OMP_NUM_THREADS": str(threads)},
    )
    try:
        yield _ready(process)
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _ready(process: subprocess.Popen[str]) -> Server:
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        if found := _READY.search(line):
            threading.Thread(target=process.stderr.read, daemon=True).start()
            return Server(found[2], found[1], process.pid)
    raise InfLLMError(f"the server did not start: {''.join(said).strip()}")
