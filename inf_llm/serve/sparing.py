"""Logs that a hostile client cannot fill, and memory that the process gives back."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import time

LINES, SECONDS = 20, 10.0
"""Most messages of a logger in so many seconds; a traceback counts as one."""
RETURN_SECONDS = 1.0
LOGGERS = ("asyncio", "inf_llm.serve", "uvicorn.error")
PRIMITIVES = "ONEDNN_PRIMITIVE_CACHE_CAPACITY", "128"
"""Compiled operations that oneDNN keeps, and their number. There is one for every length of a text,
and of its own 1,024 each takes up to some hundred kB."""
_M_MMAP_THRESHOLD, _LARGE = -3, 4 << 20
"""Tensors of so many bytes and more go back to the system when they are let go. The C library would
raise this with the largest one seen, and keep what is between those in use."""


class Sparing(logging.Filter):
    """Lets `LINES` messages in `SECONDS` pass, and says how many it left out."""

    def __init__(self) -> None:
        super().__init__()
        self._until, self._passed = 0.0, 0

    def filter(self, record: logging.LogRecord) -> bool:
        """See `logging.Filter`."""
        now = time.monotonic()
        if now >= self._until:
            left_out, self._passed = self._passed - LINES, 0
            self._until = now + SECONDS
            if left_out > 0:
                record.msg = f"{record.getMessage()} ({left_out:,} messages before it left out)"
                record.args = None
        self._passed += 1
        return self._passed <= LINES


def spare_logs() -> None:
    """Bound what is logged of requests."""
    for name in LOGGERS:
        logger = logging.getLogger(name)
        if not any(isinstance(each, Sparing) for each in logger.filters):
            logger.addFilter(Sparing())


class Returning:
    """Gives memory that is free between tensors in use back to the system, now and then."""

    def __init__(self) -> None:
        self._next = 0.0

    def __call__(self) -> None:
        """To be called often."""
        now = time.monotonic()
        if now >= self._next:
            with contextlib.suppress(AttributeError, OSError, TypeError):  # another C library
                ctypes.CDLL(None).malloc_trim(0)
            self._next = time.monotonic() + RETURN_SECONDS


def spare_memory() -> None:
    """Bound what the process holds beside tensors; before a model is loaded."""
    os.environ.setdefault(*PRIMITIVES)
    with contextlib.suppress(AttributeError, OSError, TypeError):  # another C library
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE)
