"""Reserved room is there when it is written to, and costs nothing before."""

from __future__ import annotations

import gc
import mmap
import sys
from typing import Any

import pytest
import torch

from inf_llm.memory import region, store
from inf_llm.memory.region import reserve
from inf_llm.memory.store import Home, PageShape

SHAPE = PageShape(heads=2, tokens=4, key_width=8, value_width=8, dtype=torch.bfloat16)

reserves = pytest.mark.skipif(sys.platform == "win32", reason="Windows counts what is reserved")


def _resident() -> int:
    with open("/proc/self/statm") as file:  # noqa: PTH123
        return int(file.read().split()[1]) * mmap.PAGESIZE


@reserves
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_written_and_read(dtype: torch.dtype) -> None:
    room = reserve(1000, 33, dtype)
    assert room is not None
    assert room.shape == (1000, 33)
    assert room.dtype == dtype
    assert not room.any()
    room[999] = 7
    assert room.sum() == 7 * 33


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_is_taken_where_it_is_written() -> None:
    gc.collect()
    before = _resident()
    room = reserve(1 << 17, 4096, torch.float32)  # 2 GiB
    assert room is not None
    room[: 1 << 10] = 1  # 16 MiB
    assert 15 << 20 < _resident() - before < 40 << 20
    del room
    assert _resident() - before < 8 << 20


def test_more_than_there_can_be() -> None:
    assert reserve(1 << 40, 1 << 20, torch.float32) is None


def test_a_limit_on_address_space(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is reserved would be missing elsewhere."""
    resource = pytest.importorskip("resource")
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (1 << 40, 1 << 40))
    assert reserve(10, 10, torch.float32) is None


def _refuse(*args: Any) -> None:
    raise OSError("no address space")


def test_a_home_without_it_takes_slabs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(region.mmap, "mmap", _refuse)
    monkeypatch.setattr(store, "_SLAB_BYTES", 3 * SHAPE.block_bytes)
    home = Home(SHAPE, torch.device("cpu"), pinned=False)
    k, v = torch.randn(2, 7, 2, 4, 8).to(SHAPE.dtype)
    home.write(home.allocate(7), k, v)
    assert len(home._slabs) == 3
    got_k, got_v = home.read(torch.arange(14))
    assert torch.equal(got_k, k.view(14, 32))
    assert torch.equal(got_v, v.view(14, 32))


@reserves
def test_a_home_is_one_slab_as_long_as_it_lasts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "_RESERVED_BYTES", 5 * SHAPE.block_bytes)
    home = Home(SHAPE, torch.device("cpu"), pinned=False)
    k, v = torch.randn(2, 12, 2, 4, 8).to(SHAPE.dtype)
    for first, last, slabs in ((0, 4, 1), (4, 5, 1), (5, 12, 3)):
        home.write(home.allocate(last - first), k[first:last], v[first:last])
        assert len(home._slabs) == slabs
    assert torch.equal(home.read(torch.arange(24))[0], k.view(24, 32))
