"""Loops of a decode step on a CPU, in C; optional: where they are not built, torch computes it.

They are one extension module, which is built with the package and contains the functions for each
kind of processor. A decode step on a CPU is a few large products and very many small operations,
each of which costs microseconds before it begins. In C the small operations are one call.
"""

from __future__ import annotations

import functools
import logging
import os
from types import ModuleType

logger = logging.getLogger(__name__)


@functools.cache
def functions() -> ModuleType | None:
    """The fastest functions that this processor can run; None if not built, or switched off."""
    if os.environ.get("INF_LLM_NATIVE", "1") == "0":
        return None
    try:
        from inf_llm.native import _loops
    except ImportError as error:
        logger.debug("torch computes the decode steps: %s", error)
        return None
    return next(iter(_loops.variants.values()))


def in_use() -> str:
    """What computes decode steps on a CPU: "torch", or "C" and the kind of processor."""
    fastest = functions()
    return "torch" if fastest is None else f"C ({fastest.__name__})"
