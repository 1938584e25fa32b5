"""Where results go, made safe and checked before any work is done."""

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
"""How threads wait for each other. Those that spin take the cores from those that work as soon as
anything else runs on the machine: twenty times slower was measured. Those that sleep at once make
the many short steps of an answer take a third longer (docs/results.md). So they spin for a moment,
where the library of threads is GNU's, as in torch for Linux; others take the first setting."""


def prepare_process() -> None:
    """Let nothing that is printed end the program, and threads wait without taking a core.

    A descriptor that is closed at the start would be given to the next file that is opened, and
    what libraries print would be written into it. Characters that standard output has no code for
    become question marks, and what is typed where no language is set is read as UTF-8.
    """
    set_waiting()
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
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
    """Let threads wait as `WAITING` says, but for what the user has set; before torch is loaded."""
    for key, value in WAITING.items():
        os.environ.setdefault(key, value)


def require_output() -> None:
    """See that an answer has a reader; prints a note where characters will be lost.

    Raises:
        SettingsError: standard output is closed.
    """
    if sys.stdout is None:
        raise SettingsError("standard output is closed, so an answer would be lost: open it")
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    if not encoding.lower().startswith("utf"):
        say(f"standard output is in {encoding}: what it cannot show is written as '?'")


def argument_text(option: str, text: str) -> str:
    """An argument as text: its bytes are UTF-8, whatever language the shell was set to.

    Raises:
        TextError: they are not.
    """
    with contextlib.suppress(UnicodeError):
        text = os.fsencode(text).decode()
    check_text(option, text)
    return text


def require_writable(option: str, path: Path | str | None) -> None:
    """See that a file can be written; it is left as it is.

    Raises:
        SettingsError: it cannot.
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
