"""Pages as rows of bytes, plane after plane: how they lie in files."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from inf_llm.memory.codec import Plane, Planes


def row_bytes(planes: Sequence[Plane]) -> int:
    """Bytes of a page."""
    return sum(plane.width * plane.dtype.itemsize for plane in planes)


def to_rows(pages: Planes) -> Tensor:
    """Rows of every plane (n, width) as rows of bytes (n, row_bytes) uint8."""
    return torch.cat([plane.contiguous().view(torch.uint8) for plane in pages], 1)


def common_view(rows: Tensor, planes: Sequence[Plane]) -> Tensor:
    """Rows of bytes in the dtype of all planes, where they have one and the rows are aligned.

    Copying and splitting them then takes no detour over bytes.
    """
    kinds = {plane.dtype for plane in planes}
    return rows.view(kinds.pop()) if len(kinds) == 1 and rows.data_ptr() % 8 == 0 else rows


def from_rows(rows: Tensor, planes: Sequence[Plane]) -> Planes:
    """Rows (n, ...), of bytes or as `common_view` gives them, as rows of every plane (n, width)."""
    if rows.dtype == planes[0].dtype:
        return rows.split([plane.width for plane in planes], 1)
    parts = rows.split([plane.width * plane.dtype.itemsize for plane in planes], 1)
    return tuple(
        part.contiguous().view(plane.dtype) for part, plane in zip(parts, planes, strict=True)
    )
