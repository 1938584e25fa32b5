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

    def interrupt(self, until: str) -> str:
        """Press Ctrl-C at a prompt until a text appears; gives all up to its end.

        One press may be lost: Python notices a signal that comes after it has shown a prompt and
        before it waits for the answer only at the next key.
        """
        for _ in range(10):
            self.type("\x03")
            if self._shows(until, 10):
                break
        return self.see(until, 0)

    def see(self, text: str, seconds: float = 120) -> str:
        """Wait until a text appears after what was seen before; gives all up to its end."""
        shown = self._shows(text, seconds)
        assert shown, f"{text!r} did not appear in {seconds} s, but: {self.shown[-2000:]}"
        before, self._from = self._from, self.shown.index(text, self._from) + len(text)
        return self.shown[before : self._from]

    def _shows(self, text: str, seconds: float) -> bool:
        """Whether a text appears in that time after what was seen before."""
        end = time.monotonic() + seconds
        while text not in self.shown[self._from :]:
            left = end - time.monotonic()
            if left <= 0:
                return False
            assert self._more(min(left, 1.0)), f"ended without {text!r}: {self.shown[-2000:]}"
        return True

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
