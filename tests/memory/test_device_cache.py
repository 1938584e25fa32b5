"""Slots hold the pages that were loaded into them."""

from __future__ import annotations

import pytest
import torch

from inf_llm.memory.device_cache import DeviceCache
from inf_llm.variants import TIER
from tests.memory.test_tiers import PAGE, PLANES, rows_of


@pytest.mark.parametrize("overlap", [False, True], ids=["in line", "overlapped"])
@pytest.mark.parametrize("name", TIER.own)
def test_slots(name: str, overlap: bool, device: torch.device) -> None:
    if name == "pinned" and device.type == "cpu":
        pytest.skip("only CUDA copies from page-locked memory")
    tier = TIER.get(name)(PLANES)
    tier.make_room(30)
    tier.write(torch.arange(30), tuple(x.to(device) for x in rows_of(torch.arange(30))))
    cache = DeviceCache(tier, PLANES, 6, device, overlap)

    def load(pages: list[int], slots: list[int], missing: list[bool]) -> None:
        numbers = (torch.tensor(x, dtype=torch.int64, device=device) for x in (pages, slots))
        cache.load(*numbers, torch.tensor(missing, dtype=torch.bool, device=device))

    load([3, 29, 14], [5, 0, 2], [True, True, True])
    load([7, 11], [0, 2], [True, False])
    load([8], [5], [False])
    found = cache.read(torch.tensor([2, 5, 0, 2], device=device))
    for got, want in zip(found, rows_of(torch.tensor([14, 3, 7, 14])), strict=True):
        assert got.device.type == device.type
        assert torch.equal(got.cpu(), want)
    assert cache.nbytes == 6 * PAGE
