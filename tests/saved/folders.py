"""A folder with small segments, made without any model."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from inf_llm.saved.folder import Writer, writing
from inf_llm.saved.manifest import Manifest, Segment
from inf_llm.saved.seal import SEAL, seal
from inf_llm.saved.segment import Rows


def manifest(writer: Writer, segments: list[Segment], **changed: Any) -> Manifest:
    """What a save of three tokens says."""
    values: dict[str, Any] = {
        "id": writer.id,
        "generation": writer.generation,
        "identity": {"weights": "ab", "config": {"layers": 2, "rope": [1, 2.5]}},
        "tokens": 3,
        "rows": 1,
        "blocks": 2,
        "stores": {"0": {"heads": 2, "dtype": "float32"}},
        "state": {"layers": [{"dict": [["seen", 3]]}], "slots": {"dict": []}},
        "segments": tuple(segments),
        "library": "0.1.0",
        "note": {"title": "Война"},
    }
    return Manifest(**(values | changed))


def add(writer: Writer, kind: str, **more: Tensor) -> Segment:
    """A segment that says which save wrote it."""
    rows = torch.full((3, 4), writer.generation, dtype=torch.int32)
    return writer.add(kind, {name: Rows.of(each) for name, each in {"rows": rows, **more}.items()})


def save(folder: Path, **changed: Any) -> Manifest:
    """Write the next generation: new blocks and a new state."""
    with writing(folder) as writer:
        kept = [] if writer.before is None else list(writer.before.segments)
        kept = [segment for segment in kept if segment.kind != "state"]
        kept += [add(writer, kind) for kind in ("blocks", "index")]
        made = manifest(writer, [], **changed)
        state = add(writer, "state", **{SEAL: seal(made)})
        made = replace(made, segments=(*kept, state))
        writer.commit(made)
    return made


def contents(folder: Path) -> dict[str, bytes]:
    """Files and their bytes."""
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


class Failing:
    """Calls to the disk, one or all of which from one on fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, at: int, error: int, forever: bool) -> None:
        self.calls = 0
        self._at, self._error, self._forever = at, error, forever
        for owner, name in ((os, "open"), (os, "fsync"), (Path, "replace"), (Path, "unlink")):
            monkeypatch.setattr(owner, name, self._wrapped(getattr(owner, name)))

    def _wrapped(self, real: Any) -> Any:
        def call(*args: Any, **options: Any) -> Any:
            self.calls += 1
            if self.calls == self._at or (self._forever and self.calls > self._at):
                raise OSError(self._error, os.strerror(self._error))
            return real(*args, **options)

        return call
