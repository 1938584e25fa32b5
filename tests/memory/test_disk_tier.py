"""Pages on a disk: the same as in memory, within the budget, and every failure is an error."""

from __future__ import annotations

import errno
import gc
from pathlib import Path
from typing import Any

import pytest
import torch

import inf_llm
from inf_llm.errors import SavedMemoryError
from inf_llm.memory.codec import Plane, Planes
from inf_llm.memory.disk_tier import _GROWTH, Budget, DiskTier
from inf_llm.memory.page_rows import row_bytes
from tests.tiny import SETTINGS, tiny_model

PLANES = (Plane(20, torch.float32), Plane(8, torch.int16))
PAGE = row_bytes(PLANES)


def rows_of(pages: torch.Tensor, more: int = 0) -> Planes:
    first = torch.arange(20) + 100.0 * pages[:, None] + more
    return first, (torch.arange(8) - 100 * pages[:, None] + more).to(torch.int16)


def same(tier: DiskTier, pages: list[int], more: int = 0) -> bool:
    wanted = torch.tensor(pages)
    pairs = zip(tier.read(wanted), rows_of(wanted, more), strict=True)
    return all(torch.equal(*pair) for pair in pairs)


@pytest.mark.parametrize("host", [1, PAGE * _GROWTH, PAGE * _GROWTH * 3, 1 << 30])
def test_pages_come_back_in_any_order(tmp_path: Path, host: int) -> None:
    tier = DiskTier(PLANES, str(tmp_path), str(host))
    pages = torch.arange(500)
    tier.write(pages, rows_of(pages))
    generator = torch.Generator().manual_seed(0)
    for _ in range(30):
        assert same(tier, torch.randint(0, 500, (40,), generator=generator).tolist())
    assert same(tier, list(range(500)))
    assert tier.in_memory(500) * PAGE <= host


def test_a_number_that_is_used_again_has_its_new_page(tmp_path: Path) -> None:
    tier = DiskTier(PLANES, str(tmp_path), "1MB")
    pages = torch.arange(20)
    tier.write(pages, rows_of(pages))
    assert same(tier, [3, 4, 5])
    tier.write(torch.tensor([4]), rows_of(torch.tensor([4]), more=1))
    assert same(tier, [4], more=1)
    assert same(tier, [3, 5])


def test_tiers_of_a_folder_share_a_budget(tmp_path: Path) -> None:
    host = 4 * _GROWTH * PAGE
    tiers = [DiskTier(PLANES, str(tmp_path), str(host)) for _ in range(3)]
    pages = torch.arange(1000)
    for tier in tiers:
        tier.write(pages, rows_of(pages))
        assert same(tier, list(range(1000)))
    assert sum(tier.in_memory(1000) for tier in tiers) * PAGE == host
    budget = Budget.of(str(tmp_path.resolve()), host)
    assert budget.used == host
    del tier
    tiers.clear()
    gc.collect()
    assert budget.used == 0


def test_nothing_is_left_of_the_file(tmp_path: Path) -> None:
    tier = DiskTier(PLANES, str(tmp_path / "new"), "1MB")
    tier.write(torch.arange(5), rows_of(torch.arange(5)))
    assert list((tmp_path / "new").iterdir()) == []
    assert same(tier, [0, 4])


class Failing:
    """A file that fails, or stops in the middle of what it does."""

    def __init__(self, file: Any, fail: str) -> None:
        self._file, self._fail = file, fail

    def __getattr__(self, name: str) -> Any:
        if name == self._fail:
            raise OSError(errno.ENOSPC if name == "write" else errno.EIO, "no luck")
        return getattr(self._file, name)

    def write(self, data: memoryview) -> int:
        if self._fail == "write":
            raise OSError(errno.ENOSPC, "No space left on device")
        return int(self._file.write(data[: max(1, len(data) // 2)]))

    def readinto(self, data: memoryview) -> int:
        if self._fail == "readinto":
            raise OSError(errno.EIO, "Input/output error")
        return int(self._file.readinto(data[: max(1, len(data) // 3)]))


def test_calls_that_do_only_a_part_are_gone_on_with(tmp_path: Path) -> None:
    tier = DiskTier(PLANES, str(tmp_path), "1")
    tier._file = Failing(tier._file, "nothing")
    tier.write(torch.arange(50), rows_of(torch.arange(50)))
    assert same(tier, list(range(50)))


@pytest.mark.parametrize(
    ("fail", "message"),
    [("write", "cannot be written .No space left"), ("readinto", "cannot be read .Input/output")],
)
def test_a_disk_that_fails(tmp_path: Path, fail: str, message: str) -> None:
    tier = DiskTier(PLANES, str(tmp_path), "1")
    pages = torch.arange(9)
    tier.write(pages, rows_of(pages))
    good = tier._file
    tier._file = Failing(good, fail)
    with pytest.raises(SavedMemoryError, match=message):
        tier.write(pages, rows_of(pages)) if fail == "write" else tier.read(pages)
    tier._file = good
    assert same(tier, list(range(9)))


def test_what_was_not_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SavedMemoryError, match="ends too early"):
        DiskTier(PLANES, str(tmp_path), "1MB").read(torch.tensor([7]))


def test_a_folder_that_cannot_be_written_is_refused_by_patch(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    tier = {"name": "disk", "path": str(tmp_path / "file" / "deeper")}
    with pytest.raises(SavedMemoryError, match="cannot be written"):
        inf_llm.patch(tiny_model(), type="inf-llm", **SETTINGS, tier=tier)


def test_no_folder_can_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SavedMemoryError, match="cannot be written"):
        DiskTier(PLANES, str(tmp_path / "file" / "deeper"), "1MB")
