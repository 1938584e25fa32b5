"""Slots hold the pages that were loaded into them."""

from __future__ import annotations

import pytest
import torch

from inf_llm.memory.device_cache import DeviceCache
from inf_llm.variants import TIER
from tests.memory.test_tiers import PAGE, PLANES, rows_of


@pytest.mark.parametrize("overlap", [False, True], ids=["in line", "overlapped"])
@pytest.mark.parametrize("together", [1, 3], ids=lambda pages: f"{pages} pages a unit")
@pytest.mark.parametrize("name", ["host", "pinned"])
def test_slots(name: str, together: int, overlap: bool, device: torch.device) -> None:
    if name == "pinned" and device.type == "cpu":
        pytest.skip("only CUDA copies from page-locked memory")
    tier, pages = TIER.get(name)(PLANES), torch.arange(30 * together)
    tier.make_room(len(pages))
    tier.write(pages, tuple(x.to(device) for x in rows_of(pages)))
    cache = DeviceCache(tier, PLANES, 6, together, device, overlap)

    def load(units: list[int], slots: list[int], missing: list[bool]) -> None:
        numbers = (torch.tensor(x, dtype=torch.int64, device=device) for x in (units, slots))
        cache.load(*numbers, torch.tensor(missing, dtype=torch.bool, device=device))

    def pages_of(units: list[int]) -> torch.Tensor:
        return (torch.tensor(units)[:, None] * together + torch.arange(together)).flatten()

    load([3, 29, 14], [5, 0, 2], [True, True, True])
    load([7, 11], [0, 2], [True, False])
    load([8], [5], [False])
    found = cache.read(pages_of([2, 5, 0, 2]).to(device))
    for got, want in zip(found, rows_of(pages_of([14, 3, 7, 14])), strict=True):
        assert got.device.type == device.type
        assert torch.equal(got.cpu(), want)
    assert cache.nbytes == 6 * together * PAGE
