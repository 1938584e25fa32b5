"""What finds and checks the blocks of stores, in segments of its own.

Such a segment has for each store the checksums of its blocks (n,), and tensors (V, n, ...) of the
search. It takes in earlier ones that are no larger than it, so that there are few of them however
often a text was saved, and a tensor is moved as often as the logarithm of that.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from inf_llm.saved.segment import Rows

CHECKS = "crc32"

Index = Mapping[str, Tensor]
"""Tensors of a segment by store and what they are: "0.means"."""


def absorbed(before: Sequence[Index], new: Index) -> int:
    """How many of the newest of earlier segments a new one takes in."""
    count, size = 0, _bytes(new)
    while count < len(before) and _bytes(before[-1 - count]) <= size:
        size += _bytes(before[-1 - count])
        count += 1
    return count


def _bytes(segment: Index) -> int:
    return sum(tensor.nbytes for tensor in segment.values())


def merged(segments: Sequence[Index]) -> dict[str, Rows]:
    """Several segments, oldest first, as one."""
    names = dict.fromkeys(name for tensors in segments for name in tensors)
    return {name: _joined([part[name] for part in segments if name in part]) for name in names}


def _joined(parts: Sequence[Tensor]) -> Rows:
    """Tensors of consecutive blocks as one, written without a copy of all."""
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
    """Checksums of a store's blocks (n,), and what finds them, segment after segment."""
    parts: dict[str, list[Tensor]] = {}
    for tensors in segments:
        for name, tensor in tensors.items():
            owner, _, what = name.partition(".")
            if owner == store:
                parts.setdefault(what, []).append(tensor)
    return torch.cat(parts.pop(CHECKS)), parts


def lengths(parts: Mapping[str, Sequence[Tensor]]) -> set[int]:
    """For how many blocks there are tensors; one number unless a file is damaged."""
    return {sum(part.shape[_axis(part)] for part in each) for each in parts.values()}
