"""Error handling for all commands: bad input or a file error ends a command with one line."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable

from inf_llm.errors import InfLLMError


def guarded(work: Callable[[], None], stopped: str = "stopped") -> int:
    """Run a command's work; return the exit code: 0, 2 for bad input, 130 after Ctrl-C.

    Args:
        work: the work; it raises `InfLLMError` for errors that the user can correct.
        stopped: message after Ctrl-C.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # unencodable characters must not end a command
            stream.reconfigure(errors="replace")
    try:
        work()
    except InfLLMError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:  # an error of a file or a disk; the error has the file's name
        where = f"{error.filename}: " if error.filename else ""
        print(f"error: {where}{error.strerror or error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(stopped, file=sys.stderr)
        return 130
    return 0


def folder_name(text: str, option: str) -> str:
    """Check the name of a folder from the command line, and return it.

    Raises:
        InfLLMError: the name is empty or contains a null character.
    """
    if not text or "\0" in text:
        raise InfLLMError(f"{option} {text!r} is no path: give the name of a folder")
    return text
