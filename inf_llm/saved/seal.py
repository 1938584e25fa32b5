"""The seal: a digest of the manifest in the state segment, which shows that the two match."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from inf_llm.saved.manifest import NAME, Manifest

SEAL = "manifest.sha256"
"""Name of the seal's tensor in the state segment."""


def seal(manifest: Manifest) -> Tensor:
    """Return the SHA-256 of a manifest without its segments, (32,) uint8."""
    return torch.tensor(list(bytes.fromhex(manifest.seal)), dtype=torch.uint8)


def broken_seal(path: Path, manifest: Manifest, state: Mapping[str, Tensor]) -> str | None:
    """Return an error message if a folder's state segment lacks the manifest's seal, or None."""
    if SEAL in state and torch.equal(state[SEAL], seal(manifest)):
        return None
    return (
        f"{path / NAME} was changed after it was written, so it does not belong to the segment of "
        "the state: read the text again and save it"
    )
