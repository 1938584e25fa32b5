"""Set-up and checks of standard streams and output files, before any work is done."""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import sys
from pathlib import Path

from inf_llm.checks import check_text
from inf_llm.cli.failures import say
from inf_llm.errors import SettingsError

WAITING = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "1000"}
"""Settings for OpenMP threads that wait for each other.

Threads that spin take cores from working threads as soon as another program runs on the machine: a
slowdown of twenty times was measured. Threads that sleep at once make the many short steps of an
answer take a third longer (docs/results.md). So threads spin for a moment if the OpenMP library is
GNU's, as in torch for Linux; other libraries read only the first setting."""


def prepare_process() -> None:
    """Make the standard streams safe for all output, and set how threads wait.

    If a standard stream is closed at the start, the next file that is opened would get its
    descriptor, and messages of libraries would be written into that file. Characters that standard
    output cannot encode become question marks. Input is read as UTF-8 if no language is set.
    """
    set_waiting()
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115, PTH123 (for as long as the program runs)
    if not sys.stderr.isatty():  # the progress bars of other libraries would fill a log
        os.environ.setdefault("TQDM_DISABLE", "1")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    if (
        isinstance(sys.stdin, io.TextIOWrapper)
        and codecs.lookup(sys.stdin.encoding).name == "ascii"
    ):
        sys.stdin.reconfigure(encoding="utf-8", errors="surrogateescape")


def set_waiting() -> None:
    """Set the variables of `WAITING` that the user has not set; call it before torch is loaded."""
    for key, value in WAITING.items():
        os.environ.setdefault(key, value)


def require_output() -> None:
    """Check that standard output is open; print a note if it cannot show all characters.

    Raises:
        SettingsError: standard output is closed.
    """
    if sys.stdout is None:
        raise SettingsError("standard output is closed, so an answer would be lost: open it")
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    if not encoding.lower().startswith("utf"):
        say(f"standard output is in {encoding}: what it cannot show is written as '?'")


def argument_text(option: str, text: str) -> str:
    """Return an argument as text, decoded from UTF-8 even if the shell has another encoding.

    Raises:
        TextError: the bytes are not UTF-8.
    """
    with contextlib.suppress(UnicodeError):
        text = os.fsencode(text).decode()
    check_text(option, text)
    return text


def require_writable(option: str, path: Path | str | None) -> None:
    """Check that a file can be written; the file is left as it is.

    Raises:
        SettingsError: the file cannot be written.
    """
    if path is None:
        return
    try:
        target = Path(path).resolve()
        existed = target.exists()
        if existed and not target.is_file() and not target.is_dir():
            return  # a pipe or a device: opening it may wait for a reader
        target.open("ab").close()
        if not existed:
            target.unlink()
    except OSError as error:
        raise SettingsError(
            f"{option} {path}: cannot be written ({error.strerror or error}): name a file in a "
            "folder that exists and may be written"
        ) from None
