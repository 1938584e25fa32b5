"""Errors of commands: a message and an exit code; a traceback only with --debug."""

from __future__ import annotations

import contextlib
import errno
import functools
import inspect
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import typer

from inf_llm.errors import InfLLMError, SettingsError, reason

UNEXPECTED, REFUSED, INTERRUPTED = 1, 2, 130

_Command = TypeVar("_Command", bound=Callable[..., Any])


def reported(command: _Command) -> _Command:
    """Wrap a command with a `debug` parameter: its errors become messages and exit codes."""

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            _require_folder()
            return command(*args, **kwargs)
        except KeyboardInterrupt as error:
            say(str(error) or "stopped")
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:  # the output has no reader: there is no message
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(UNEXPECTED) from None
        except InfLLMError as error:
            if kwargs.get("debug"):
                raise
            say(f"error: {error}")
            raise typer.Exit(REFUSED) from None
        except (typer.Exit, typer.Abort):
            raise
        except Exception as error:
            if kwargs.get("debug") or _is_full(error):
                raise
            say(f"unexpected {type(error).__name__}: {reason(error)}")
            say("run the same command with --debug to see where it comes from")
            raise typer.Exit(UNEXPECTED) from None

    wrapped.__signature__ = inspect.signature(command, eval_str=True)  # type: ignore[attr-defined]
    return wrapped  # type: ignore[return-value]


@contextlib.contextmanager
def full_output_reported() -> Iterator[None]:
    """Report that results cannot be written: a full disk, a quota or a limit of file size."""
    try:
        yield
    except OSError as error:
        if not _is_full(error):
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the rest of the output goes there at exit
        say(f"error: the output cannot be written ({error.strerror}): make room, or redirect it")
        raise SystemExit(REFUSED) from None


def _is_full(error: Exception) -> bool:
    full = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return isinstance(error, OSError) and error.errno in full


def _require_folder() -> None:
    """Check the working directory: without one, torch's math library would end the process."""
    try:
        Path.cwd()
    except OSError as error:
        raise SettingsError(
            f"the working directory cannot be used ({error.strerror}): change to another one"
        ) from None


def say(message: str) -> None:
    """Print one line on standard error, if that is still open."""
    with contextlib.suppress(OSError):
        typer.echo(message, err=True)
