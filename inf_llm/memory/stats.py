"""What a memory holds and what it cost, as plain numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class MemoryStats:
    """Counts of one layer, or of several added up.

    Attributes:
        tokens: tokens seen.
        blocks: sealed blocks.
        device_bytes: keys and values on the computing device: sinks, window, recalled blocks.
        host_bytes: keys and values of sealed blocks in host memory.
        index_bytes: representatives, which grow with the text.
        hits: recalled blocks that were on the device already.
        misses: recalled blocks that were not.
        loads: blocks copied to the device; on a CPU, those a device would have had to load.
        evictions: blocks that left the device for others.
        disk_bytes: keys and values of sealed blocks in files.
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
        """Counts of several layers or rows; tokens are those of the longest, not added up."""
        rows = [dataclasses.astuple(part) for part in parts]
        if not rows:
            return cls()
        columns = list(zip(*rows, strict=True))
        return cls(max(columns[0]), *(sum(column) for column in columns[1:]))
