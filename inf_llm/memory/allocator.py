"""Block numbers and their reference counts, without the contents or the location of blocks."""

from __future__ import annotations

import threading

import torch
from torch import Tensor


class BlockAllocator:
    """Allocator of block numbers with reference counts; a number without a holder is reused.

    Attributes:
        count: how many numbers were ever given out: 0 to `count` - 1, free ones included.
    """

    def __init__(self) -> None:
        self._held = torch.zeros(0, dtype=torch.int32)  # holders of every block
        self._free: list[int] = []
        self._lock = threading.Lock()
        self.count = 0

    def allocate(self, count: int) -> Tensor:
        """Return `count` free block numbers (count,), ascending; the caller holds each once."""
        with self._lock:
            reused = sorted(self._free[-count:])
            del self._free[len(self._free) - len(reused) :]
            end = self.count + count - len(reused)
            again = torch.tensor(reused, dtype=torch.int64)
            numbers = torch.cat((again, torch.arange(self.count, end)))
            self.count = end
            if self.count > len(self._held):
                more = self._held.new_zeros(2 * self.count - len(self._held))
                self._held = torch.cat((self._held, more))
            self._held[numbers] += 1
        return numbers

    def hold(self, numbers: Tensor) -> None:
        """Add one holder to each of these blocks, per occurrence if a number is repeated."""
        with self._lock:
            self._held.index_add_(0, numbers, torch.ones_like(numbers, dtype=torch.int32))

    def release(self, numbers: Tensor) -> Tensor:
        """Remove one holder from each block; return the blocks (n,) that this makes free."""
        with self._lock:
            self._held.index_add_(0, numbers, -torch.ones_like(numbers, dtype=torch.int32))
            touched = numbers.unique()
            gone = touched[self._held[touched] == 0]
            self._free.extend(gone.tolist())
        return gone

    @property
    def used(self) -> int:
        """Number of blocks with a holder."""
        return self.count - len(self._free)
