"""The tested releases of transformers, for error messages."""

from __future__ import annotations

import torch
import transformers

NEWEST_TESTED = (5, 24)
"""Newest release of transformers that all tests ran with."""


def setting() -> str:
    """Return the installed versions, and advice if transformers is newer than the newest tested."""
    installed = f"transformers {transformers.__version__}, torch {torch.__version__}"
    if _release(transformers.__version__) <= NEWEST_TESTED:
        return f"{installed}; type 'origin' leaves the model's attention as it is"
    newest = ".".join(map(str, NEWEST_TESTED))
    return (
        f"{installed}; this transformers is newer than {newest}, the newest one tested: "
        f"try pip install 'transformers=={newest}.*'"
    )


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
