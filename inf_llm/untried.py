"""Paths for hardware that was not at hand: the first use of each says so, once.

Whatever has run on a GPU and was found right loses its call here.
"""

from __future__ import annotations

import functools
import logging

_log = logging.getLogger("inf_llm")


@functools.cache
def untried(path: str) -> None:
    """Say in one line that a path is being used which has not run on such hardware before."""
    _log.warning(
        "%s: written for a GPU and tested as far as a CPU allows, but not yet run on one; "
        "scripts/gpu_check.sh compares it with what is known to be right",
        path,
    )
