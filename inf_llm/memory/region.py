"""Room for pages that costs address space at once, but memory only where something is written.

One long tensor that never moves is read in one step however much it comes to hold. Growing one
would copy it, and need twice its memory meanwhile.
"""

from __future__ import annotations

import mmap
import sys

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

import torch
from torch import Tensor


def reserve(rows: int, width: int, dtype: torch.dtype) -> Tensor | None:
    """Zeros (rows, width) on the host; None where the system would count them as used.

    Windows does, and so does a limit on a process's address space (`ulimit -v`).
    """
    if sys.platform == "win32" or resource is None:
        return None
    if resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY:
        return None
    try:
        region = mmap.mmap(-1, rows * width * dtype.itemsize, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except (OSError, ValueError, OverflowError):
        return None
    return torch.frombuffer(region, dtype=dtype).view(rows, width)
