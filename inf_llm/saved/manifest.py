"""`manifest.json`: content of a folder and its model; files not named there do not belong to it."""

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
        file: name of the file.
        bytes: length of the file.
        sha256: digest of the file; see `digest`.
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
        """Kind of the content: "blocks", "index" or "state"."""
        return self.file.split("-")[0]

    @property
    def generation(self) -> int:
        """Generation of the memory whose save wrote the file."""
        return int(self.file.removesuffix(".safetensors").split("-")[1])


@dataclass(frozen=True)
class Manifest:
    """The committed content of a folder.

    Attributes:
        id: id of the memory, the same for all its saves.
        generation: 1 for the first save, and 1 more for each later save.
        identity: fields that identify the model and settings of the memory.
        tokens: number of tokens that were read.
        rows: number of texts (batch rows).
        blocks: number of sealed blocks in all layers.
        stores: facts of each store of blocks, by name of the store; see `block_files.StoreFacts`.
        state: the remaining state, as `tree.pack` writes it.
        segments: files of the folder.
        note: the user's own data, without effect on the memory.
        library: version of this package that wrote the folder.
        format: format number of the folder.
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
        """SHA-256 of all fields but `segments`.

        The state segment has the same seal, so that a change of only one of the two is detected.
        """
        return _checksum(dataclasses.asdict(dataclasses.replace(self, segments=())))

    @property
    def nbytes(self) -> int:
        """Bytes of all segments."""
        return sum(segment.bytes for segment in self.segments)

    def of_kind(self, kind: str) -> list[Segment]:
        """Return the segments of a kind, oldest first."""
        return [segment for segment in self.segments if segment.kind == kind]

    def write(self, folder: Path) -> None:
        """Write the manifest to a folder, which commits it."""
        data = dataclasses.asdict(self)
        data["checksum"] = _checksum(data)
        content = json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False).encode()
        write_atomically(folder / NAME, content, private=True)


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of a folder.

    Raises:
        SavedMemoryError: the folder holds no memory, the memory has another format, or the manifest
            cannot be read or is damaged.
    """
    path = folder / NAME
    try:
        data = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise SavedMemoryError(
            f"{folder} holds no memory: it has no {NAME} (inf-llm read --save makes one)"
        ) from None
    except OSError as error:
        raise SavedMemoryError(f"{path} cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError):
        raise SavedMemoryError(f"{path} is not JSON, so it is damaged: {_AGAIN}") from None
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        version = data.get("format") if isinstance(data, dict) else None
        raise SavedMemoryError(
            f"{path}: format {version!r} is not known; this version reads format {FORMAT}"
        )
    try:
        if data.pop("checksum", None) != _checksum(data):
            raise SavedMemoryError(f"{path} was changed after it was written: {_AGAIN}")
        data["segments"] = _segments(data["segments"])
        return Manifest(**data)
    except (TypeError, KeyError, SettingsError, RecursionError) as error:
        raise SavedMemoryError(f"{path} is damaged ({error}): {_AGAIN}") from error


def _segments(rows: Any) -> tuple[Segment, ...]:
    """Convert and check the segments of a manifest: one of kind "state", others oldest first.

    The newest index segment has the generation of the newest segment of blocks. One index segment
    may serve several segments of blocks.
    """
    segments = tuple(Segment(**row) for row in rows)
    of = {
        kind: [each.generation for each in segments if each.kind == kind]
        for kind in ("blocks", "index", "state")
    }
    ascending = all(one < other for kind in of for one, other in pairwise(of[kind]))
    found_alike = of["blocks"][-1:] == of["index"][-1:] and set(of["index"]) <= set(of["blocks"])
    if len(of["state"]) != 1 or not ascending or not found_alike:
        raise SettingsError("its segments do not belong together")
    return segments


def _checksum(data: Mapping[str, Any]) -> str:
    text = json.dumps(data, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def plain(what: str, value: Any) -> dict[str, Any]:
    """Return a dictionary in the form that the manifest stores; keys become text.

    Raises:
        UnsupportedInputError: the value is not a dictionary, or JSON cannot represent a part of it.
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
    """Yield the fields in which two identities differ: field, saved value, present value."""
    if isinstance(saved, Mapping) and isinstance(here, Mapping):
        for key in dict.fromkeys((*saved, *here)):
            yield from differences(saved.get(key), here.get(key), f"{path}.{key}" if path else key)
    elif saved != here:
        yield path, saved, here
