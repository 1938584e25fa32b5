"""A program at a terminal of its own, as a person would use it."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path
from types import TracebackType

_CONTROL = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b[()][A-Z0-9]|\x1b[=>]|\r")


class Screen:
    """Runs Python with arguments; `see` waits for text, `type` writes lines."""

    def __init__(self, *words: object, cwd: Path) -> None:
        self._terminal, inner = pty.openpty()
        termios.tcsetwinsize(inner, (40, 200)) if sys.version_info >= (3, 11) else None
        self.shown = ""
        self._from = 0
        self.process = subprocess.Popen(
            [sys.executable, *map(str, words)],
            stdin=inner,
            stdout=inner,
            stderr=inner,
            cwd=cwd,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
            env={**os.environ, "OMP_NUM_THREADS": "1", "TERM": "xterm", "COLUMNS": "200"},
        )
        os.close(inner)

    def __enter__(self) -> Screen:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        os.close(self._terminal)

    def type(self, line: str) -> None:
        """Type a line, or with a control character just that."""
        end = "" if line[-1:] in ("\x03", "\x04") else "\n"
        os.write(self._terminal, (line + end).encode())

    def see(self, text: str, seconds: float = 120) -> str:
        """Wait until a text appears after what was seen before; gives all up to its end."""
        end = time.monotonic() + seconds
        while True:
            at = self.shown.find(text, self._from)
            if at >= 0:
                seen = self.shown[self._from : at + len(text)]
                self._from = at + len(text)
                return seen
            left = end - time.monotonic()
            assert left > 0, f"{text!r} did not appear in {seconds} s, but: {self.shown[-2000:]}"
            if not self._more(min(left, 1.0)):
                raise AssertionError(f"ended without {text!r}: {self.shown[-2000:]}")

    def ends(self, seconds: float = 60) -> int:
        """Wait for the end; the exit code."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and self._more(0.2):
            pass
        return self.process.wait(seconds)

    def _more(self, seconds: float) -> bool:
        if not select.select([self._terminal], [], [], seconds)[0]:
            return True
        try:
            data = os.read(self._terminal, 65536)
        except OSError:  # the other side has closed
            return False
        if b"\x1b[6n" in data:  # where is the cursor?
            os.write(self._terminal, b"\x1b[1;1R")
        self.shown += _CONTROL.sub("", data.decode("utf-8", "replace"))
        return bool(data)
