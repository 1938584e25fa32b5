"""Sealed blocks in mapped files, read on demand and checked at their first read.

Processes that map the same files share the physical memory of the files.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import torch
from torch import Tensor

from inf_llm.errors import SavedMemoryError
from inf_llm.memory.codec import Plane, Planes
from inf_llm.memory.page_rows import common_view, from_rows, to_rows
from inf_llm.memory.tiers import Tier


def checksums(blocks: Tensor) -> Tensor:
    """Return the CRC-32 (n,) int64 of blocks (n, bytes) uint8."""
    width, data = blocks.shape[1], blocks.contiguous().view(-1).numpy().data
    sums = [zlib.crc32(data[at : at + width]) for at in range(0, len(data), width)]
    return torch.tensor(sums, dtype=torch.int64)


def joined(planes: Planes, heads: int) -> Tensor:
    """Convert pages, given as planes (n * heads, width), to blocks (n, bytes) uint8.

    The bytes of a block are contiguous: page after page, and within a page plane after plane.
    """
    rows = to_rows(planes)
    return rows.view(-1, heads * rows.shape[1])


class MappedBlocks:
    """The blocks 0 to `count` - 1 of one store, in one or more files in this order.

    Args:
        planes: formats of the planes of a page.
        heads: pages of a block.
        files: name of each file, for error messages, and its blocks (n, bytes) uint8.
        checks: CRC-32 of all blocks (count,).
    """

    def __init__(
        self,
        planes: Sequence[Plane],
        heads: int,
        files: Sequence[tuple[str, Tensor]],
        checks: Tensor,
    ) -> None:
        self._planes = tuple(planes)
        self._heads = heads
        self._files = tuple(files)
        self._checks = checks
        self._starts = torch.tensor([0, *(len(blocks) for _, blocks in files)]).cumsum(0)
        self._seen = torch.zeros(len(checks), dtype=torch.bool)
        self.count = len(checks)

    @property
    def pages(self) -> int:
        """Pages of all blocks."""
        return self.count * self._heads

    def read(self, pages: Tensor) -> Planes:
        """Return the rows of pages (n,) in every plane, (n, width).

        Raises:
            SavedMemoryError: a block is damaged.
        """
        blocks = pages // self._heads
        if not bool(self._seen[blocks].all()):
            self.check(blocks.unique())
        if len(self._files) == 1:
            return from_rows(self._pages_of(0).index_select(0, pages), self._planes)
        file_of = torch.searchsorted(self._starts, blocks, right=True) - 1
        result = None
        for at in file_of.unique().tolist():
            rows = self._pages_of(at)
            wanted = (file_of == at).nonzero()[:, 0]
            local = pages[wanted] - self._starts[at] * self._heads
            if result is None:
                result = rows.new_empty(len(pages), rows.shape[1])
            result[wanted] = rows.index_select(0, local)
        assert result is not None
        return from_rows(result, self._planes)

    def check(self, blocks: Tensor) -> None:
        """Compare blocks (n,) with their checksums, unless they were checked before.

        Raises:
            SavedMemoryError: a block does not have its checksum.
        """
        for block in blocks[~self._seen[blocks]].tolist():
            at = int(torch.searchsorted(self._starts, block, right=True)) - 1
            name, held = self._files[at]
            if zlib.crc32(held[block - int(self._starts[at])].numpy().data) != int(
                self._checks[block]
            ):
                raise SavedMemoryError(
                    f"{name}: block {block} is damaged (its bytes do not have its checksum): read "
                    "the text again and save it"
                )
            self._seen[block] = True

    def _pages_of(self, at: int) -> Tensor:
        """Return the pages of a file as rows."""
        blocks = self._files[at][1]
        return common_view(blocks.view(len(blocks) * self._heads, -1), self._planes)


class MappedTier(Tier):
    """Read-only pages in mapped files, followed by the pages of another tier.

    Args:
        planes: formats of the planes of a page.
        mapped: the first pages.
        above: tier of all later pages.
    """

    def __init__(self, planes: Sequence[Plane], mapped: MappedBlocks, above: Tier) -> None:
        super().__init__(planes)
        self._mapped = mapped
        self._above = above

    def make_room(self, pages: int) -> None:
        """See `Tier.make_room`."""
        if pages > self._mapped.pages:
            self._above.make_room(pages - self._mapped.pages)

    def write(self, pages: Tensor, planes: Planes) -> None:
        """See `Tier.write`; all pages must come after the mapped pages."""
        self._above.write(pages - self._mapped.pages, planes)

    def read(self, pages: Tensor) -> Planes:
        """See `Tier.read`."""
        first = self._mapped.pages
        inside = pages < first
        if bool(inside.all()):
            return self._mapped.read(pages)
        if not bool(inside.any()):
            return self._above.read(pages - first)
        low, high = self._mapped.read(pages[inside]), self._above.read(pages[~inside] - first)
        order = torch.cat((inside.nonzero()[:, 0], (~inside).nonzero()[:, 0])).argsort()
        return tuple(torch.cat(both).index_select(0, order) for both in zip(low, high, strict=True))

    def in_memory(self, pages: int) -> int:
        """See `Tier.in_memory`; mapped pages do not count, because the system can drop them."""
        return self._above.in_memory(max(0, pages - self._mapped.pages))
