"""Mapping from the physical blocks of a store to their numbers in the files of a memory."""

from __future__ import annotations

import torch
from torch import Tensor


class FileNumbers:
    """File numbers of one store's blocks in one saved memory.

    Args:
        name: name of the store in the files.
        numbers: file numbers (n,) of physical blocks 0, 1, ...; -1 for a block not in the files.
        count: number of file numbers that are given out.
    """

    def __init__(self, name: str, numbers: Tensor | None = None, count: int = 0) -> None:
        self.name = name
        self.count = count
        self._numbers = torch.full((1,), -1) if numbers is None else numbers

    def with_more(self, physical: Tensor) -> tuple[FileNumbers, Tensor]:
        """Return a copy that also numbers physical blocks (n,), and the ones it adds, ascending."""
        wanted = physical.unique()
        room = max(len(self._numbers), int(wanted.max()) + 1 if len(wanted) else 0)
        numbers = torch.full((room,), -1)
        numbers[: len(self._numbers)] = self._numbers
        new = wanted[numbers[wanted] < 0]
        count = self.count + len(new)
        numbers[new] = torch.arange(self.count, count)
        return FileNumbers(self.name, numbers, count), new

    def of(self, physical: Tensor) -> Tensor:
        """Return the file numbers of physical blocks (any shape); -1 for blocks not in files."""
        there = physical.clamp(0, len(self._numbers) - 1)
        known = (physical >= 0) & (physical < len(self._numbers))
        return torch.where(known, self._numbers[there], -1)

    def forget(self, physical: Tensor) -> None:
        """Remove the file numbers of physical blocks (n,), which no longer exist."""
        self._numbers[physical[physical < len(self._numbers)]] = -1
