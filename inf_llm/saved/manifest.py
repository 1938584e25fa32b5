"""`manifest.json`: what a folder holds and for which model. What it does not name is not there."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from inf_llm.atomic import write_atomically
from inf_llm.checks import at_least, require, typed
from inf_llm.errors import SavedMemoryError, SettingsError, UnsupportedInputError

NAME = "manifest.json"
FORMAT = 1
SEGMENT_NAME = re.compile(r"(blocks|index|state)-[0-9]{6,}\.safetensors")
_AGAIN = "read the text again and save it"


@dataclass(frozen=True)
class Segment:
    """A file of the folder.

    Attributes:
        file: its name.
        bytes: its length.
        sha256: the digest of its bytes; see `digest`.
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

    @property
    def generation(self) -> int:
        """The save that wrote it."""
        return int(self.file.removesuffix(".safetensors").split("-")[1])


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

    def __post_init__(self) -> None:
        typed(self)
        at_least(self, 1, "generation")
        at_least(self, 0, "tokens", "rows", "blocks")
        for key in ("identity", "stores", "note"):
            fits = isinstance(getattr(self, key), Mapping)
            require(fits, key, f"{key} = {getattr(self, key)!r} is no object")

    @property
    def seal(self) -> str:
        """SHA-256 of all but the segments.

        The segment of the state has it too, so that a change of one of the two alone is seen.
        """
        return _checksum(dataclasses.asdict(dataclasses.replace(self, segments=())))

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
        content = json.dumps(said, indent=1, ensure_ascii=False, allow_nan=False).encode()
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
    try:
        if said.pop("checksum", None) != _checksum(said):
            raise SavedMemoryError(f"{path} was changed after it was written: {_AGAIN}")
        said["segments"] = _segments(said["segments"])
        return Manifest(**said)
    except (TypeError, KeyError, SettingsError, RecursionError) as error:
        raise SavedMemoryError(f"{path} is damaged ({error}): {_AGAIN}") from error


def _segments(rows: Any) -> tuple[Segment, ...]:
    """The segments of a manifest: one of the state, and blocks and index, oldest first.

    The newest index is as new as the newest blocks; it may be that of several of them.
    """
    found = tuple(Segment(**row) for row in rows)
    of = {
        kind: [each.generation for each in found if each.kind == kind]
        for kind in ("blocks", "index", "state")
    }
    ascending = all(one < other for kind in of for one, other in pairwise(of[kind]))
    found_alike = of["blocks"][-1:] == of["index"][-1:] and set(of["index"]) <= set(of["blocks"])
    if len(of["state"]) != 1 or not ascending or not found_alike:
        raise SettingsError("its segments do not belong together")
    return found


def _checksum(said: Mapping[str, Any]) -> str:
    text = json.dumps(said, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def plain(what: str, value: Any) -> dict[str, Any]:
    """A dictionary as the manifest keeps it; keys become text.

    Raises:
        UnsupportedInputError: it is none, or has something in it that JSON cannot write.
    """
    if not isinstance(value, Mapping):
        raise UnsupportedInputError(f"{what} = {value!r} is no dictionary")
    try:
        text = json.dumps(dict(value), ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise UnsupportedInputError(
            f"{what} cannot be saved ({error}): text, finite numbers, lists and dictionaries can"
        ) from None
    kept: dict[str, Any] = json.loads(text)
    return kept


def differences(saved: Any, here: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Fields in which two identities differ: the field, what was saved, what is here."""
    if isinstance(saved, Mapping) and isinstance(here, Mapping):
        for key in dict.fromkeys((*saved, *here)):
            yield from differences(saved.get(key), here.get(key), f"{path}.{key}" if path else key)
    elif saved != here:
        yield path, saved, here
