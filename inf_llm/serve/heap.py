"""Memory that the process holds beside tensors in use, and gives back to the system."""

from __future__ import annotations

import contextlib
import ctypes
import os
import time

RETURN_SECONDS = 1.0
PRIMITIVES = "ONEDNN_PRIMITIVE_CACHE_CAPACITY", "128"
"""Compiled operations that oneDNN keeps, and their number. There is one for every length of a text,
and of its own 1,024 each takes up to some hundred kB."""
_M_MMAP_THRESHOLD, _LARGE = -3, 4 << 20
"""Tensors of so many bytes and more go back to the system when they are let go. The C library would
raise this with the largest one seen, and keep what is between those in use."""


class HeapTrim:
    """Calls `return_memory` now and then."""

    def __init__(self) -> None:
        self._next = 0.0

    def __call__(self) -> None:
        """To be called often."""
        if time.monotonic() >= self._next:
            return_memory()
            self._next = time.monotonic() + RETURN_SECONDS


def return_memory() -> None:
    """Give memory that is free between tensors in use back to the system."""
    with contextlib.suppress(AttributeError, OSError, TypeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def bound_heap() -> None:
    """Bound what the process holds beside tensors; before a model is loaded."""
    os.environ.setdefault(*PRIMITIVES)
    with contextlib.suppress(AttributeError, OSError, TypeError):  # another C library
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE)
