"""Codecs: the storage format of a block's keys and values, as planes with one row per page.

A block has one *page* per key head. All heads can recall whole blocks together, or each head can
recall only its own pages. A *plane* is a matrix with a part of every page; the codec `raw` has one
plane for keys and one for values.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

Planes = tuple[Tensor, ...]
"""The stored form of n pages: one tensor (n, width) per plane, in the order of `Codec.planes`."""


@dataclass(frozen=True)
class PageShape:
    """Sizes and dtype of one block: `heads` pages, each with `tokens` keys and values."""

    heads: int
    tokens: int
    key_width: int
    value_width: int
    dtype: torch.dtype


@dataclass(frozen=True)
class Plane:
    """The format of one plane, which stores a part of every page.

    Attributes:
        width: elements per page.
        dtype: dtype of an element.
    """

    width: int
    dtype: torch.dtype


class Codec(ABC):
    """Conversion of pages to planes and back.

    Attributes:
        shape: sizes and dtype of one block.
        planes: formats of the planes.
    """

    planes: tuple[Plane, ...]

    def __init__(self, shape: PageShape) -> None:
        self.shape = shape

    @abstractmethod
    def encode(self, k: Tensor, v: Tensor) -> Planes:
        """Convert keys (n, tokens, D) and values (n, tokens, Dv) of n pages to planes."""

    @abstractmethod
    def decode(self, planes: Planes) -> tuple[Tensor, Tensor]:
        """Return keys (n, tokens, D) and values (n, tokens, Dv), in the dtype of `shape`."""

    @property
    def block_bytes(self) -> int:
        """Bytes of one block."""
        return self.shape.heads * sum(plane.width * plane.dtype.itemsize for plane in self.planes)


class RawCodec(Codec):
    """Codec that stores keys and values unchanged."""

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
