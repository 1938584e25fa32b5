"""Return of unused heap memory to the operating system."""

from __future__ import annotations

import contextlib
import ctypes
import os
import time

RETURN_SECONDS = 1.0
PRIMITIVES = "ONEDNN_PRIMITIVE_CACHE_CAPACITY", "128"
"""Environment variable for the number of compiled operations that oneDNN caches, and its value.
oneDNN compiles one for every length of a text. Its default is 1,024 of up to some hundred kB."""
_M_MMAP_THRESHOLD, _LARGE = -3, 4 << 20
"""The C library returns tensors of this many bytes or more to the system as soon as they are freed.
By default it raises this threshold with the largest freed one, and keeps free memory between
tensors in use."""


class HeapTrim:
    """Calls `return_memory` at most once in `RETURN_SECONDS`."""

    def __init__(self) -> None:
        self._next = 0.0

    def __call__(self) -> None:
        """Call `return_memory` if `RETURN_SECONDS` have passed since the last time."""
        if time.monotonic() >= self._next:
            return_memory()
            self._next = time.monotonic() + RETURN_SECONDS


def return_memory() -> None:
    """Return free heap memory between tensors in use to the system."""
    with contextlib.suppress(AttributeError, OSError, TypeError):  # not glibc
        ctypes.CDLL(None).malloc_trim(0)


def bound_heap() -> None:
    """Bound the heap memory beside tensors; call it before a model is loaded."""
    os.environ.setdefault(*PRIMITIVES)
    with contextlib.suppress(AttributeError, OSError, TypeError):  # not glibc
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE)
