"""A server process that runs for the duration of a measurement."""

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
    """A running server.

    Attributes:
        address: URL of the server.
        model: name of its model.
        process: process id.
    """

    address: str
    model: str
    process: int

    def memory(self, name: str = "VmRSS") -> int | None:
        """Return resident bytes of the process, or the peak for "VmHWM"; None if not available."""
        kibibytes = self._status(name)
        return None if kibibytes is None else 1024 * kibibytes

    def threads(self) -> int | None:
        """Return the number of threads of the process; None if not available."""
        return self._status("Threads")

    def open_files(self) -> int | None:
        """Return the number of open file descriptors of the process; None if not available."""
        try:
            return len(list(Path(f"/proc/{self.process}/fd").iterdir()))
        except OSError:
            return None

    def cpu_seconds(self) -> float:
        """Return the processor seconds of the process so far."""
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
    """Run `inf-llm serve` with `options` on a free port for the duration of the `with` block.

    Raises:
        InfLLMError: the server did not start; the message contains its output.
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
    lines = []
    for line in process.stderr:
        lines.append(line)
        if match := _READY.search(line):
            threading.Thread(target=process.stderr.read, daemon=True).start()
            return Server(match[2], match[1], process.pid)
    raise InfLLMError(f"the server did not start: {''.join(lines).strip()}")
