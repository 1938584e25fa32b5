"""Segments: safetensors files that are written once, as a stream, and are mapped to be read.

The file format is that of safetensors: eight bytes with the length of a JSON header, the header,
and the tensors. Tensors with wider elements come first, so that every tensor is aligned.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from inf_llm.errors import SavedMemoryError, UnsupportedInputError
from inf_llm.saved.digest import Digest

_CODES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
_DTYPES = {code: dtype for dtype, code in _CODES.items()}
_LONGEST_HEAD = 100_000_000


@dataclass(frozen=True)
class Rows:
    """A tensor that is written piece by piece.

    Attributes:
        dtype: dtype of the tensor.
        shape: shape of the whole tensor.
        pieces: returns the pieces of the tensor in order.
    """

    dtype: torch.dtype
    shape: tuple[int, ...]
    pieces: Callable[[], Iterable[Tensor]]

    @classmethod
    def of(cls, tensor: Tensor) -> Rows:
        """Return an existing tensor as one piece."""
        return cls(tensor.dtype, tuple(tensor.shape), lambda: (tensor,))

    @property
    def nbytes(self) -> int:
        """Bytes of the whole tensor."""
        return math.prod(self.shape) * self.dtype.itemsize


def write_segment(path: Path, tensors: Mapping[str, Rows]) -> tuple[int, str]:
    """Write a file that only its owner can read, and wait until it is on the disk.

    Returns:
        The length of the file in bytes, and its digest.

    Raises:
        OSError: the file exists, or cannot be written.
        UnsupportedInputError: a tensor has a dtype that segments do not support.
    """
    ordered = sorted(tensors.items(), key=lambda item: -item[1].dtype.itemsize)
    digest, written = Digest(), 0
    with open(path, "xb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        for piece in _bytes(ordered):
            file.write(piece)
            digest.update(piece)
            written += len(piece)
        file.flush()
        os.fsync(file.fileno())
    return written, digest.hexdigest()


def _bytes(tensors: list[tuple[str, Rows]]) -> Iterable[bytes | memoryview]:
    head, end = {}, 0
    for name, rows in tensors:
        if rows.dtype not in _CODES:
            raise UnsupportedInputError(f"tensors of {rows.dtype} cannot be saved with a memory")
        begin, end = end, end + rows.nbytes
        head[name] = {
            "dtype": _CODES[rows.dtype],
            "shape": rows.shape,
            "data_offsets": (begin, end),
        }
    text = json.dumps(head).encode()
    text += b" " * (-(8 + len(text)) % 64)  # the first tensor is aligned
    yield len(text).to_bytes(8, "little")
    yield text
    for _, rows in tensors:
        for piece in rows.pieces():
            if piece.numel():
                flat = piece.detach().cpu().contiguous().view(-1).view(torch.uint8)
                yield flat.numpy().data


def map_segment(path: Path, expected: int) -> dict[str, Tensor]:
    """Map a file and return its tensors, which must not be written.

    Processes that map the same file share its physical memory.

    Args:
        path: the file.
        expected: expected length of the file in bytes.

    Raises:
        SavedMemoryError: the file has another length or a damaged header, or cannot be mapped.
        OSError: the file cannot be opened.
    """
    size = path.stat().st_size
    if size != expected:
        raise SavedMemoryError(f"{path} has {size:,} bytes instead of {expected:,}: it is damaged")
    try:
        whole = torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8)
    except RuntimeError:
        path.stat()  # raises if the file has been removed
        raise SavedMemoryError(f"{path} cannot be mapped into memory") from None
    length = int.from_bytes(bytes(whole[:8].tolist()), "little")
    try:
        if length > min(size - 8, _LONGEST_HEAD):
            raise ValueError(length)
        head = json.loads(whole[8 : 8 + length].numpy().tobytes())
        tensors = {name: _placed(whole[8 + length :], row) for name, row in head.items()}
        if sum(tensor.nbytes for tensor in tensors.values()) != size - 8 - length:
            raise ValueError(length)
        return tensors
    except (ValueError, TypeError, KeyError, AttributeError, RuntimeError) as error:
        raise SavedMemoryError(f"{path}: its header is damaged") from error


def _placed(data: Tensor, row: Any) -> Tensor:
    """Return the tensor that an entry of the header describes."""
    dtype, shape, (begin, end) = _DTYPES[row["dtype"]], row["shape"], row["data_offsets"]
    if not 0 <= begin <= end <= len(data) or end - begin != math.prod(shape) * dtype.itemsize:
        raise ValueError(row)
    return data[begin:end].view(dtype).view(shape)
