"""Which blocks of a store are in files, and under which numbers."""

from __future__ import annotations

import torch
from torch import Tensor


class FileNumbers:
    """The blocks of one store in one memory's files.

    Args:
        name: of the store there.
        numbers: in files, of physical blocks 0, 1, ... (n,); -1 for those that are not there.
        count: numbers that were given out in the files.
    """

    def __init__(self, name: str, numbers: Tensor | None = None, count: int = 0) -> None:
        self.name = name
        self.count = count
        self._numbers = torch.full((1,), -1) if numbers is None else numbers

    def with_more(self, physical: Tensor) -> tuple[FileNumbers, Tensor]:
        """The same with physical blocks (n,) that may be new, and which of them are, ascending."""
        wanted = physical.unique()
        room = max(len(self._numbers), int(wanted.max()) + 1 if len(wanted) else 0)
        numbers = torch.full((room,), -1)
        numbers[: len(self._numbers)] = self._numbers
        new = wanted[numbers[wanted] < 0]
        count = self.count + len(new)
        numbers[new] = torch.arange(self.count, count)
        return FileNumbers(self.name, numbers, count), new

    def of(self, physical: Tensor) -> Tensor:
        """Numbers in files of physical blocks (any shape); -1 for those that are not there."""
        there = physical.clamp(0, len(self._numbers) - 1)
        known = (physical >= 0) & (physical < len(self._numbers))
        return torch.where(known, self._numbers[there], -1)

    def forget(self, physical: Tensor) -> None:
        """These physical blocks (n,) no longer exist."""
        self._numbers[physical[physical < len(self._numbers)]] = -1
