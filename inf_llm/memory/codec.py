"""How the keys and values of a block are written down: as planes, one row per page.

A block has one *page* per key head, so that a row can recall whole blocks and a single head its own
pages. A plane holds a part of every page; `raw` has one plane of keys and one of values.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

Planes = tuple[Tensor, ...]
"""Rows (n, width) of pages, in the order of `Codec.planes`."""


@dataclass(frozen=True)
class PageShape:
    """What one block holds: `heads` pages of `tokens` keys and values."""

    heads: int
    tokens: int
    key_width: int
    value_width: int
    dtype: torch.dtype


@dataclass(frozen=True)
class Plane:
    """A part of every page.

    Attributes:
        width: elements of a page.
        dtype: of an element.
    """

    width: int
    dtype: torch.dtype


class Codec(ABC):
    """How pages are written and read.

    Attributes:
        shape: what one block holds.
        planes: what a page becomes.
    """

    planes: tuple[Plane, ...]

    def __init__(self, shape: PageShape) -> None:
        self.shape = shape

    @abstractmethod
    def encode(self, k: Tensor, v: Tensor) -> Planes:
        """Keys (n, tokens, D) and values (n, tokens, Dv) of pages as planes."""

    @abstractmethod
    def decode(self, planes: Planes) -> tuple[Tensor, Tensor]:
        """Keys (n, tokens, D) and values (n, tokens, Dv), in the dtype of the shape."""

    @property
    def block_bytes(self) -> int:
        """Bytes of one block."""
        return self.shape.heads * sum(plane.width * plane.dtype.itemsize for plane in self.planes)


class RawCodec(Codec):
    """Keys and values as they are."""

    def __init__(self, shape: PageShape) -> None:
        super().__init__(shape)
        widths = shape.key_width, shape.value_width
        self.planes = tuple(Plane(shape.tokens * width, shape.dtype) for width in widths)

    def encode(self, k: Tensor, v: Tensor) -> Planes:
        """See `Codec.encode`."""
        return k.flatten(1), v.flatten(1)

    def decode(self, planes: Planes) -> tuple[Tensor, Tensor]:
        """See `Codec.decode`."""
        k, v = (plane.unflatten(1, (self.shape.tokens, -1)) for plane in planes)
        return k, v
