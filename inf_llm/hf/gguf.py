"""The header of a GGUF file: its metadata, and a check that the file holds one whole model.

transformers reads the weights and the tokenizer, but not all of the metadata, and it detects a
damaged file late. The layout is that of
https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_STRING, _ARRAY = 8, 9
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q"}
_SCALARS[12] = "d"
_LONGEST = 1 << 24
"""Bytes of a string, and entries of a list, beyond which a header must be damaged."""
_MAX_DIMENSIONS = 8
"""Twice the largest number of dimensions in ggml."""
_WHOLE = re.compile(r"split\.count|general\.alignment|.*\.(\w+_token_id|sliding_window)")
_TEXTS = re.compile(r"general\.architecture|tokenizer\.(chat_template|ggml\.(model|pre))")
_NUMBERS = re.compile(r".*\.rope\.scaling\.factor")
_KINDS = ((_WHOLE, int), (_TEXTS, str), (_NUMBERS, (int, float)))
"""The metadata that is used, and the type that each value must have."""

_DAMAGED = "its head is damaged or not whole"
_LONG_FACTORS = {"rope_factors_long.weight", "rope_factors_short.weight"}


@dataclass(frozen=True)
class TensorPlace:
    """The location of a tensor in the file.

    Attributes:
        shape: in the order of torch.
        kind: ggml's number of its type.
        start: bytes from the start of the file.
    """

    shape: tuple[int, ...]
    kind: int
    start: int

    @property
    def end(self) -> int:
        """Bytes from the start of the file to the end of the tensor.

        Raises:
            ValueError: the type of the tensor is unknown.
        """
        from gguf.constants import GGML_QUANT_SIZES

        sizes = {int(kind): size for kind, size in GGML_QUANT_SIZES.items()}
        if self.kind not in sizes:
            raise ValueError(f"has weights of a type ({self.kind}) that the gguf package lacks")
        per_block, size = sizes[self.kind]
        return self.start + math.prod(self.shape) // per_block * size


@dataclass(frozen=True)
class Head:
    """The header of a GGUF file.

    Attributes:
        values: the metadata; a list is replaced by its length.
        tensors: the locations of the tensors, by name.
    """

    values: dict[str, Any]
    tensors: dict[str, TensorPlace]

    @property
    def architecture(self) -> str:
        """llama.cpp's name for the kind of model; empty if the file has none."""
        return str(self.values.get("general.architecture", ""))

    def own(self, key: str, default: Any = None) -> Any:
        """Return the value whose key is `key` with the architecture as prefix."""
        return self.values.get(f"{self.architecture}.{key}", default)


def is_gguf(file: Path) -> bool:
    """Return whether a file begins with the magic number of GGUF."""
    with file.open("rb") as opened:
        return opened.read(len(MAGIC)) == MAGIC


def read_head(file: Path) -> Head:
    """Read the header of a file.

    Raises:
        ValueError: the header is damaged, or of an unknown version; the message says which.
    """
    with file.open("rb") as opened:
        try:
            return _head(opened)
        except (struct.error, UnicodeDecodeError, LookupError, OverflowError, RecursionError):
            raise ValueError(_DAMAGED) from None


def tokenizer_problem(file: Path) -> str | None:
    """Return why a GGUF file has no tokenizer that can be loaded; None if it has one."""
    try:
        values = read_head(file).values
    except ValueError as error:
        return f"{error}: download it again"
    if all(values.get(f"tokenizer.ggml.{part}") for part in ("model", "tokens")):
        return None
    return "has no tokenizer in it: name a folder or a file with one in model.tokenizer_path"


def problem(file: Path) -> str | None:
    """Return why a GGUF file is no model that can be loaded; None if it is one."""
    try:
        head = read_head(file)
        needed = max((place.end for place in head.tensors.values()), default=0)
    except ValueError as error:
        return f"{error}: download it again"
    parts, kind = head.values.get("split.count", 0), head.own("rope.scaling.type", "none")
    if parts > 1:
        return (
            f"is one of {parts} parts of a model: make one file of them with "
            "llama-gguf-split --merge FIRST_PART OUT.gguf"
        )
    if not head.architecture or not head.tensors:
        return "has no model in it: download it again"
    if (size := file.stat().st_size) < needed:
        return f"has {size:,} of {needed:,} bytes, so it was not downloaded whole"
    if kind not in ("none", "linear") or _LONG_FACTORS & head.tensors.keys():
        return (
            f"scales its rotary frequencies ({'longrope' if kind == 'none' else kind}), which "
            "transformers does not read from GGUF: use the model's folder with safetensors"
        )
    return None


def _head(opened: BinaryIO) -> Head:
    magic, version, tensors, entries = struct.unpack("<4sIQQ", opened.read(24))
    if version not in _VERSIONS:
        raise ValueError(f"is GGUF of version {version}: 2 and 3 are known")
    _require(magic == MAGIC and max(tensors, entries) <= _LONGEST)
    values = {}
    for _ in range(entries):
        key = _text(opened)
        values[key] = _value(opened, *struct.unpack("<I", opened.read(4)))
        _require(all(isinstance(values[key], of) for name, of in _KINDS if name.fullmatch(key)))
    places = list(_places(opened, tensors))
    align = values.get("general.alignment", 32)
    _require(align > 0)
    data = -(-opened.tell() // align) * align
    return Head(
        values, {name: TensorPlace(shape, kind, data + at) for name, shape, kind, at in places}
    )


def _places(opened: BinaryIO, count: int) -> Iterator[tuple[str, tuple[int, ...], int, int]]:
    """Yield the name, shape, type and offset from the first weight of each tensor."""
    for _ in range(count):
        name = _text(opened)
        (dimensions,) = struct.unpack("<I", opened.read(4))
        _require(dimensions <= _MAX_DIMENSIONS)
        *sizes, kind, at = struct.unpack(f"<{dimensions}QIQ", opened.read(8 * dimensions + 12))
        yield name, tuple(reversed(sizes)), kind, at


def _value(opened: BinaryIO, kind: int) -> Any:
    if kind == _STRING:
        return _text(opened)
    if kind != _ARRAY:
        form = "<" + _SCALARS[kind]
        return struct.unpack(form, opened.read(struct.calcsize(form)))[0]
    inner, count = struct.unpack("<IQ", opened.read(12))
    _require(count <= _LONGEST)
    if inner in _SCALARS:
        opened.seek(count * struct.calcsize("<" + _SCALARS[inner]), 1)
    else:
        for _ in range(count):
            _value(opened, inner)
    return count


def _text(opened: BinaryIO) -> str:
    (length,) = struct.unpack("<Q", opened.read(8))
    _require(length <= _LONGEST)
    data = opened.read(length)
    _require(len(data) == length)
    return data.decode()


def _require(whole: bool) -> None:
    """Raise ValueError unless the header is valid so far."""
    if not whole:
        raise ValueError(_DAMAGED)
