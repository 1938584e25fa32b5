"""The seal: a digest of the manifest in the segment of the state: the two belong together."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from inf_llm.saved.manifest import NAME, Manifest

SEAL = "manifest.sha256"
"""Name of its tensor in the segment of the state."""


def seal(manifest: Manifest) -> Tensor:
    """SHA-256 of all that a manifest says but the segments, (32,) uint8."""
    return torch.tensor(list(bytes.fromhex(manifest.seal)), dtype=torch.uint8)


def broken_seal(path: Path, manifest: Manifest, state: Mapping[str, Tensor]) -> str | None:
    """What is wrong where the segment of a folder's state has not the manifest's seal."""
    if SEAL in state and torch.equal(state[SEAL], seal(manifest)):
        return None
    return (
        f"{path / NAME} was changed after it was written, so it does not belong to the segment of "
        "the state: read the text again and save it"
    )
