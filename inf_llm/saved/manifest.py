"""`manifest.json`: what a folder holds and for which model. What it does not name is not there."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from inf_llm.atomic import write_atomically
from inf_llm.checks import typed
from inf_llm.errors import SavedMemoryError, SettingsError

NAME = "manifest.json"
FORMAT = 1
SEGMENT_NAME = re.compile(r"(blocks|index|state)-[0-9]{6}\.safetensors")
_AGAIN = "read the text again and save it"


@dataclass(frozen=True)
class Segment:
    """A file of the folder.

    Attributes:
        file: its name.
        bytes: its length.
        sha256: of its bytes.
    """

    file: str
    bytes: int
    sha256: str

    def __post_init__(self) -> None:
        typed(self)
        if not SEGMENT_NAME.fullmatch(self.file):
            raise SavedMemoryError(f"{NAME} names the file {self.file!r}, which is no segment")

    @property
    def kind(self) -> str:
        """What it holds: "blocks", "index" or "state"."""
        return self.file.split("-")[0]


@dataclass(frozen=True)
class Manifest:
    """What is committed.

    Attributes:
        id: of this memory, made once.
        generation: 1 for the first save, one more for each that follows.
        identity: of what it belongs to, by field.
        tokens: how many were read.
        rows: texts that are read side by side.
        blocks: sealed ones, over all layers.
        stores: what the blocks of each store are, by key.
        state: all else, as `tree.pack` writes it.
        segments: files of the folder.
        note: what the person who saved wants to find again; it has no effect on the memory.
        library: version of this package that wrote it.
        format: of the folder.
    """

    id: str
    generation: int
    identity: Mapping[str, Any]
    tokens: int
    rows: int
    blocks: int
    stores: Mapping[str, Any]
    state: Any
    segments: tuple[Segment, ...]
    library: str
    note: Mapping[str, Any] = field(default_factory=dict)
    format: int = FORMAT

    @property
    def nbytes(self) -> int:
        """Bytes of all segments."""
        return sum(segment.bytes for segment in self.segments)

    def of_kind(self, kind: str) -> list[Segment]:
        """The segments of a kind, oldest first."""
        return [segment for segment in self.segments if segment.kind == kind]

    def write(self, folder: Path) -> None:
        """Commit: from now on the folder holds this."""
        said = dataclasses.asdict(self)
        said["checksum"] = _checksum(said)
        content = json.dumps(said, indent=1, ensure_ascii=False).encode()
        write_atomically(folder / NAME, content, private=True)


def read_manifest(folder: Path) -> Manifest:
    """What a folder holds.

    Raises:
        SavedMemoryError: it holds no memory, or one of another format, or its manifest is damaged.
    """
    path = folder / NAME
    try:
        said = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise SavedMemoryError(
            f"{folder} holds no memory: it has no {NAME} (inf-llm read --save makes one)"
        ) from None
    except OSError as error:
        raise SavedMemoryError(f"{path} cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError):
        raise SavedMemoryError(f"{path} is not JSON, so it is damaged: {_AGAIN}") from None
    if not isinstance(said, dict) or said.get("format") != FORMAT:
        found = said.get("format") if isinstance(said, dict) else None
        raise SavedMemoryError(
            f"{path}: format {found!r} is not known; this version reads format {FORMAT}"
        )
    if said.pop("checksum", None) != _checksum(said):
        raise SavedMemoryError(f"{path} was changed after it was written: {_AGAIN}")
    try:
        said["segments"] = tuple(Segment(**each) for each in said["segments"])
        return Manifest(**said)
    except (TypeError, KeyError, SettingsError) as error:
        raise SavedMemoryError(f"{path} is damaged ({error}): {_AGAIN}") from error


def _checksum(said: Mapping[str, Any]) -> str:
    plain = json.dumps(said, sort_keys=True, default=list, ensure_ascii=True)
    return hashlib.sha256(plain.encode()).hexdigest()


def differences(saved: Any, here: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Fields in which two identities differ: the field, what was saved, what is here."""
    if isinstance(saved, Mapping) and isinstance(here, Mapping):
        for key in dict.fromkeys((*saved, *here)):
            yield from differences(saved.get(key), here.get(key), f"{path}.{key}" if path else key)
    elif saved != here:
        yield path, saved, here
