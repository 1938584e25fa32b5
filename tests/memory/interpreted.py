"""Loading pages by a program; run under Triton's interpreter or on CUDA, see `test_load`."""

from __future__ import annotations

import pytest
import torch

from inf_llm.memory.load import can_load, load_pages

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def test_it_is_used() -> None:
    """So the tests of slots that run beside this one are tests of it."""
    assert can_load(torch.device(DEVICE), pinned=True)


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float16, torch.bfloat16, torch.int8, torch.uint8], ids=str
)
def test_loading_pages(dtype: torch.dtype) -> None:
    """From three slabs, of host memory where the device is another; what is there stays."""
    width, per_slab = 1500, 4
    slabs = [torch.randint(0, 100, (per_slab, width)).to(dtype) for _ in range(3)]
    if DEVICE == "cuda":
        slabs = [slab.pin_memory() for slab in slabs]
    addresses = torch.tensor([slab.data_ptr() for slab in slabs], device=DEVICE)
    target = torch.full((5, width), 7, dtype=dtype, device=DEVICE)
    units, slots = (torch.tensor(x, device=DEVICE) for x in ([11, 2, 5, 4], [0, 3, 1, 4]))
    missing = torch.tensor([True, True, False, True], device=DEVICE)
    load_pages(addresses, per_slab, target, units, slots, missing)
    want = torch.full((5, width), 7, dtype=dtype)
    want[0], want[3], want[4] = slabs[2][3], slabs[0][2], slabs[1][0]
    assert torch.equal(target.cpu(), want)


def test_pages_that_travel_together() -> None:
    """The unit in the middle lies in two slabs."""
    slabs = [torch.randn(4, 40) for _ in range(3)]
    if DEVICE == "cuda":
        slabs = [slab.pin_memory() for slab in slabs]
    addresses = torch.tensor([slab.data_ptr() for slab in slabs], device=DEVICE)
    target = torch.zeros(6, 40, device=DEVICE)
    units, slots = (torch.tensor(x, device=DEVICE) for x in ([1, 3, 0], [1, 0, 0]))
    missing = torch.tensor([True, True, False], device=DEVICE)
    load_pages(addresses, 4, target, units, slots, missing, together=3)
    assert torch.equal(target.cpu(), torch.cat(slabs)[[9, 10, 11, 3, 4, 5]])
