"""The C sources beside this file as one library, compiled at first use and kept.

A decode step on a CPU is a few large products and very many small operations, and each of these
costs microseconds of interpreter and dispatch before it does anything. In C they are one call.
Whoever asks must do without where this gives None: there is no compiler, or nobody wants one
(``INF_LLM_NATIVE=0``).
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

_SOURCES = (Path(__file__).with_name("sketch.c"),)
_FLAGS = ("-O3", "-march=native", "-fno-math-errno", "-fPIC", "-shared")
_THREADS = (("-fopenmp",), ())  # what is tried in turn; OpenMP's threads are those of torch
_PATIENCE = 60  # seconds that compiling may take

logger = logging.getLogger(__name__)


@functools.cache
def library() -> ctypes.CDLL | None:
    """The compiled library, or None."""
    if os.environ.get("INF_LLM_NATIVE", "1") == "0":
        return None
    compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if compiler is None:
        return None
    for threads in _THREADS:
        try:
            return ctypes.CDLL(str(_compiled([compiler, *_FLAGS, *threads])))
        except (OSError, RuntimeError, subprocess.SubprocessError) as error:
            logger.debug("no native library: %s", error)
    return None


def _compiled(command: list[str]) -> Path:
    """Where the library is, compiled if it is not there yet."""
    folder = _folder()
    path = folder / f"{_fingerprint(command)}.so"
    if not path.exists():
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            made = Path(scratch) / "made.so"
            subprocess.run(
                [*command, *map(str, _SOURCES), "-o", str(made), "-lm"],
                check=True,
                capture_output=True,
                timeout=_PATIENCE,
            )
            made.replace(path)  # whole or not at all, whoever else is at it
    return path


def _folder() -> Path:
    """A folder of this user's own.

    Raises:
        OSError: there can be none, or others could put a library into it.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "inf-llm" / "native"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.stat()
    if hasattr(os, "getuid") and (status.st_uid != os.getuid() or status.st_mode & 0o022):
        raise OSError(f"{folder} is not this user's alone")
    return folder


def _fingerprint(command: list[str]) -> str:
    """Names what was compiled, with what, for which processor."""
    known = [*command, platform.platform(), _processor()]
    known += [source.read_text() for source in _SOURCES]
    return hashlib.sha256("\0".join(known).encode()).hexdigest()[:24]


def _processor() -> str:
    """What tells processors apart that do not understand the same instructions."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")
