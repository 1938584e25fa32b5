"""What stands around every command: bad input and failing files end it with one line."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable

from inf_llm.errors import InfLLMError


def guarded(work: Callable[[], None], stopped: str = "stopped") -> int:
    """Run a command's work; its exit code: 0, 2 for bad input, 130 if it was interrupted.

    Args:
        work: raises `InfLLMError` for what a person can mend.
        stopped: what to say after Ctrl-C.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # no figure is lost to a letter it cannot show
            stream.reconfigure(errors="replace")
    try:
        work()
    except InfLLMError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:  # a file or a disk that refuses; which one the system says
        where = f"{error.filename}: " if error.filename else ""
        print(f"error: {where}{error.strerror or error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(stopped, file=sys.stderr)
        return 130
    return 0


def folder_name(text: str, option: str) -> str:
    """A path as it came from the command line.

    Raises:
        InfLLMError: it is empty, or no system would take it.
    """
    if not text or "\0" in text:
        raise InfLLMError(f"{option} {text!r} is no path: give the name of a folder")
    return text
