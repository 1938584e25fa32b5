"""Warnings for code that has not run on its hardware yet: one warning per code path and process.

When a code path has run correctly on a GPU, its call of `untried` is removed.
"""

from __future__ import annotations

import functools
import logging

_log = logging.getLogger("inf_llm")


@functools.cache
def untried(path: str) -> None:
    """Log a warning of one line that a code path has not run on such hardware yet."""
    _log.warning(
        "%s: written for a GPU and tested as far as a CPU allows, but not yet run on one; "
        "scripts/gpu_check.sh compares it with what is known to be right",
        path,
    )
