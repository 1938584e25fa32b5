"""Index segments: checksums and search tensors of the blocks of all stores.

For each store, an index segment has the checksums of its blocks (n,) and the tensors (V, n, ...) of
its search. An index segment is merged with the segments before it that are no larger. After many
saves of a memory there are therefore few of them, and the number of times that a tensor is copied
grows with the logarithm of the number of saves.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from inf_llm.saved.segment import Rows

CHECKS = "crc32"

Index = Mapping[str, Tensor]
"""Tensors of a segment, by name of the store and kind of the tensor, as "0.means"."""


def absorbed(before: Sequence[Index], new: Index) -> int:
    """Return how many of the segments `before`, from the last on, are merged with `new`."""
    count, size = 0, _bytes(new)
    while count < len(before) and _bytes(before[-1 - count]) <= size:
        size += _bytes(before[-1 - count])
        count += 1
    return count


def _bytes(segment: Index) -> int:
    return sum(tensor.nbytes for tensor in segment.values())


def merged(segments: Sequence[Index]) -> dict[str, Rows]:
    """Merge several segments, oldest first, into one."""
    names = dict.fromkeys(name for tensors in segments for name in tensors)
    return {name: _joined([part[name] for part in segments if name in part]) for name in names}


def _joined(parts: Sequence[Tensor]) -> Rows:
    """Join tensors of consecutive blocks into one that is written without a copy in memory."""
    blocks, first = sum(part.shape[_axis(part)] for part in parts), parts[0]

    def pieces() -> Iterator[Tensor]:
        for rows in zip(*parts, strict=True) if _axis(first) else (parts,):
            yield from rows

    shape = list(first.shape)
    shape[_axis(first)] = blocks
    return Rows(first.dtype, tuple(shape), pieces)


def _axis(tensor: Tensor) -> int:
    """The dimension that counts blocks."""
    return min(1, tensor.dim() - 1)


def of_store(segments: Sequence[Index], store: str) -> tuple[Tensor, dict[str, list[Tensor]]]:
    """Return the checksums of a store's blocks (n,), and its search tensors from each segment."""
    parts: dict[str, list[Tensor]] = {}
    for tensors in segments:
        for name, tensor in tensors.items():
            owner, _, what = name.partition(".")
            if owner == store:
                parts.setdefault(what, []).append(tensor)
    return torch.cat(parts.pop(CHECKS)), parts


def lengths(parts: Mapping[str, Sequence[Tensor]]) -> set[int]:
    """Return the block counts of all search tensors: one number, unless a file is damaged."""
    return {sum(part.shape[_axis(part)] for part in each) for each in parts.values()}
