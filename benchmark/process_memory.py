"""Memory of this process, in bytes, as the system counts it.

A peak is read where the system keeps one for each program. What `getrusage` says of a program that
another one started includes the peak of the one that started it, on Linux.
"""

from __future__ import annotations

import sys
from pathlib import Path

from inf_llm.errors import InfLLMError

_STATUS = Path("/proc/self/status")
_SMAPS = Path("/proc/self/smaps_rollup")


def resident() -> int:
    """Memory that is really there.

    Raises:
        InfLLMError: this system does not say.
    """
    found = _figure(_STATUS, "VmRSS")
    if found is None:
        raise InfLLMError(f"memory is measured through {_STATUS}, which this system lacks")
    return found


def peak() -> int | None:
    """Most memory that was ever there at once; None where the system does not say."""
    found = _figure(_STATUS, "VmHWM")
    return found if found is not None else _peak_used()


def anonymous() -> int | None:
    """Memory that no file has; None where the system does not say."""
    return _figure(_STATUS, "RssAnon")


def proportional() -> int | None:
    """Memory, a page that n processes share counted as 1/n; None where the system does not say."""
    return _figure(_SMAPS, "Pss")


def _figure(file: Path, name: str) -> int | None:
    """A figure of one of the system's files, which say kB."""
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return None
    return next((1024 * int(row.split()[1]) for row in lines if row.startswith(f"{name}:")), None)


def _peak_used() -> int | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else used * 1024
