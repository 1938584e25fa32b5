"""Statistics of a memory as plain numbers: sizes, and counts of transfers."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class MemoryStats:
    """Statistics of one layer, or sums over several layers.

    Attributes:
        tokens: tokens seen.
        blocks: sealed blocks.
        device_bytes: bytes of keys and values on the compute device: sinks, window, recalled
            blocks.
        host_bytes: bytes of the keys and values of sealed blocks in host memory.
        index_bytes: bytes of the summary vectors, which grow with the text.
        hits: recalled blocks that were already on the device.
        misses: recalled blocks that were not on the device.
        loads: blocks copied to the device; on a CPU, blocks that a device would have to load.
        evictions: blocks that other blocks replaced on the device.
        disk_bytes: bytes of the keys and values of sealed blocks in files.
    """

    tokens: int = 0
    blocks: int = 0
    device_bytes: int = 0
    host_bytes: int = 0
    index_bytes: int = 0
    hits: int = 0
    misses: int = 0
    loads: int = 0
    evictions: int = 0
    disk_bytes: int = 0

    @classmethod
    def total(cls, parts: Iterable[MemoryStats]) -> MemoryStats:
        """Add the statistics of several layers or rows; `tokens` is their maximum."""
        rows = [dataclasses.astuple(part) for part in parts]
        if not rows:
            return cls()
        columns = list(zip(*rows, strict=True))
        return cls(max(columns[0]), *(sum(column) for column in columns[1:]))
