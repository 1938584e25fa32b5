"""Sealed blocks in files: the right rows, whole blocks checked once."""

from __future__ import annotations

import zlib

import pytest
import torch

from inf_llm.errors import SavedMemoryError
from inf_llm.memory.codec import Plane
from inf_llm.memory.mapped import MappedBlocks, MappedTier, checksums, joined
from inf_llm.memory.tiers import HostTier

MIXED = (Plane(6, torch.int8), Plane(2, torch.float16), Plane(4, torch.float32))
ALIKE = (Plane(6, torch.float32), Plane(4, torch.float32))


def pages_of(planes: tuple[Plane, ...], count: int, seed: int = 0) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(seed)
    return tuple((torch.randn(count, p.width) * 9).to(p.dtype) for p in planes)


def mapped(
    planes: tuple[Plane, ...], cuts: list[int], heads: int = 2
) -> tuple[MappedBlocks, tuple]:
    """Blocks over files of so many blocks, and the planes that they were made of."""
    rows = pages_of(planes, sum(cuts) * heads)
    image = joined(rows, heads)
    files = [(f"file{i}", part) for i, part in enumerate(image.split(cuts))]
    return MappedBlocks(planes, heads, files, checksums(image)), rows


def test_a_block_is_one_stretch_page_after_page_plane_after_plane() -> None:
    rows = pages_of(MIXED, 4)
    image = joined(rows, 2)
    expected = b"".join(plane[page].numpy().tobytes() for page in (2, 3) for plane in rows)
    assert image[1].numpy().tobytes() == expected
    assert checksums(image)[1] == zlib.crc32(expected)


@pytest.mark.parametrize("planes", [MIXED, ALIKE])
@pytest.mark.parametrize("cuts", [[7], [1, 4, 2], [3, 4]])
def test_pages_are_read_as_they_were_written(planes: tuple[Plane, ...], cuts: list[int]) -> None:
    blocks, rows = mapped(planes, cuts)
    wanted = torch.tensor([13, 0, 5, 5, 8, 1])
    for found, plane in zip(blocks.read(wanted), rows, strict=True):
        assert found.dtype == plane.dtype
        assert torch.equal(found, plane[wanted])


@pytest.mark.parametrize("pages", [[0, 3, 1], [14, 15, 17], [15, 2, 14, 0, 13]])
def test_a_tier_behind_the_files_takes_what_follows(pages: list[int]) -> None:
    blocks, rows = mapped(ALIKE, [3, 4])
    tier = MappedTier(ALIKE, blocks, HostTier(ALIKE))
    more = pages_of(ALIKE, 4, seed=1)
    tier.make_room(18)
    tier.write(torch.arange(14, 18), more)
    every = [torch.cat(both) for both in zip(rows, more, strict=True)]
    for found, plane in zip(tier.read(torch.tensor(pages)), every, strict=True):
        assert torch.equal(found, plane[pages])


def test_only_the_blocks_that_are_read_are_checked() -> None:
    blocks, _ = mapped(ALIKE, [3, 4])
    blocks._files[1][1][1, 9] += 1  # block 4
    blocks.read(torch.tensor([0, 7, 12]))
    with pytest.raises(SavedMemoryError, match="file1: block 4 is damaged"):
        blocks.read(torch.tensor([0, 9]))


def test_a_block_is_checked_once() -> None:
    blocks, _ = mapped(ALIKE, [7])
    blocks.read(torch.tensor([0]))
    blocks._files[0][1][0, 0] += 1  # nobody changes a mapped file; it is not looked at again
    blocks.read(torch.tensor([1]))
