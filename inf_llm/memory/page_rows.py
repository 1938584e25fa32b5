"""The file format of pages: rows of bytes, with one plane after another in each row."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from inf_llm.memory.codec import Plane, Planes


def row_bytes(planes: Sequence[Plane]) -> int:
    """Return the bytes of a page."""
    return sum(plane.width * plane.dtype.itemsize for plane in planes)


def to_rows(pages: Planes) -> Tensor:
    """Convert planes (n, width) to rows of bytes (n, row_bytes) uint8."""
    return torch.cat([plane.contiguous().view(torch.uint8) for plane in pages], 1)


def common_view(rows: Tensor, planes: Sequence[Plane]) -> Tensor:
    """View rows of bytes in the dtype of the planes, if all planes share it and rows are aligned.

    Such rows can be copied and split without a conversion from bytes.
    """
    kinds = {plane.dtype for plane in planes}
    return rows.view(kinds.pop()) if len(kinds) == 1 and rows.data_ptr() % 8 == 0 else rows


def from_rows(rows: Tensor, planes: Sequence[Plane]) -> Planes:
    """Convert rows (n, ...), in bytes or as `common_view` returns them, to planes (n, width)."""
    if rows.dtype == planes[0].dtype:
        return rows.split([plane.width for plane in planes], 1)
    parts = rows.split([plane.width * plane.dtype.itemsize for plane in planes], 1)
    return tuple(
        part.contiguous().view(plane.dtype) for part, plane in zip(parts, planes, strict=True)
    )
