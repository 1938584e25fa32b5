"""Memory of this process, in bytes, as the operating system counts it.

The peak is read from the process's status file if there is one. `getrusage` is only the fallback:
on Linux, its peak of a child process includes the peak of the process that started it.
"""

from __future__ import annotations

import sys
from pathlib import Path

from inf_llm.errors import InfLLMError

_STATUS = Path("/proc/self/status")
_SMAPS = Path("/proc/self/smaps_rollup")


def resident() -> int:
    """Return the resident memory.

    Raises:
        InfLLMError: the system does not report it.
    """
    found = _figure(_STATUS, "VmRSS")
    if found is None:
        raise InfLLMError(f"memory is measured through {_STATUS}, which this system lacks")
    return found


def peak() -> int | None:
    """Return the peak of the resident memory; None if the system does not report it."""
    found = _figure(_STATUS, "VmHWM")
    return found if found is not None else _peak_used()


def anonymous() -> int | None:
    """Return the resident memory without a backing file; None if not reported."""
    return _figure(_STATUS, "RssAnon")


def proportional() -> int | None:
    """Return the memory with each page shared by n processes counted 1/n; None if not reported."""
    return _figure(_SMAPS, "Pss")


def _figure(file: Path, name: str) -> int | None:
    """Return a figure of a system file, converted from kB to bytes."""
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
