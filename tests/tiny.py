"""A tiny random Llama and a tokenizer of bytes, as scripts/make_tiny_checkpoint.py makes them."""

from __future__ import annotations

import runpy
from functools import cache
from pathlib import Path
from typing import Any

SETTINGS: dict[str, Any] = {
    "n_init": 16,
    "n_local": 64,
    "block_size": 16,
    "topk": 4,
    "repr_topk": 4,
    "max_cached_block": 8,
    "exc_block_size": 32,
}


@cache
def _script() -> dict[str, Any]:
    script = Path(__file__).parent.parent / "scripts" / "make_tiny_checkpoint.py"
    return runpy.run_path(str(script))


def tiny_tokenizer() -> Any:
    """One token per byte."""
    return _script()["make_tokenizer"]()


def tiny_model() -> Any:
    """Two layers with sharp attention, not patched."""
    return _script()["make_model"](len(tiny_tokenizer()))
