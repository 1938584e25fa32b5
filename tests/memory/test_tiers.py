"""Pages come back from every tier as they were written, wherever its slabs lie."""

from __future__ import annotations

import copy
import gc
import mmap
import pickle
import sys
import threading
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from inf_llm.errors import UnsupportedInputError
from inf_llm.memory import tiers
from inf_llm.memory.codec import Plane, Planes
from inf_llm.memory.tiers import HostTier, PinnedTier, Tier
from inf_llm.variants import TIER

PLANES = (Plane(20, torch.float32), Plane(8, torch.int16))
PAGE = 20 * 4 + 8 * 2


@pytest.fixture(params=[0, 256], ids=["a slab at a time", "page by page"])
def few(request: pytest.FixtureRequest) -> int:
    """Up to how many pages are read one by one."""
    return int(request.param)


@pytest.fixture(params=[1, 7, 10_000], ids=lambda pages: f"{pages} pages a slab")
def pages_a_slab(request: pytest.FixtureRequest) -> int:
    return int(request.param)


SLABS = ("host", "pinned")  # the tier "disk" has tests of its own


@pytest.fixture(params=SLABS)
def tier(
    request: pytest.FixtureRequest, pages_a_slab: int, few: int, monkeypatch: pytest.MonkeyPatch
) -> Tier:
    """Every row; where there is no GPU, nothing is page-locked."""
    monkeypatch.setattr(tiers, "_FEW", few)
    for name in ("_FIRST_BYTES", "_SLAB_BYTES"):
        monkeypatch.setattr(tiers, name, pages_a_slab * PAGE)
    if not torch.cuda.is_available():
        monkeypatch.setattr(PinnedTier, "pinned", False)
    made: Tier = TIER.get(request.param)(PLANES)
    return made


def rows_of(pages: torch.Tensor) -> Planes:
    """Rows that tell page and place."""
    first = torch.arange(20) + 100.0 * pages[:, None]
    return first, (torch.arange(8) - 100 * pages[:, None]).to(torch.int16)


def written(tier: Tier, pages: torch.Tensor) -> None:
    tier.make_room(int(pages[-1]) + 1)
    tier.write(pages, rows_of(pages))


def test_written_and_read(tier: Tier) -> None:
    for first, last in ((0, 3), (3, 18), (18, 27), (27, 60)):
        written(tier, torch.arange(first, last))
    for pages in (torch.randperm(60), torch.tensor([4, 4, 59])):
        for got, want in zip(tier.read(pages), rows_of(pages), strict=True):
            assert torch.equal(got, want)


def test_written_with_gaps(tier: Tier) -> None:
    pages = torch.tensor([1, 2, 9, 13, 19])
    written(tier, pages)
    assert torch.equal(tier.read(pages)[1], rows_of(pages)[1])


@pytest.mark.parametrize("count", [1, 2, 5, 40, 1000])
def test_a_host_tier_has_room_for_an_eighth_more_at_most(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiers, "_FIRST_BYTES", 3 * PAGE)
    tier = HostTier(PLANES)
    assert tier._slabs == (), "nothing is reserved before there is a page"
    for pages in range(1, count + 1):
        tier.make_room(pages)
    (slab,) = tier._slabs
    reserved = sum(plane.untyped_storage().nbytes() for plane in slab)
    assert count * PAGE <= reserved <= (count + max(3, count // 8)) * PAGE


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_is_taken_where_it_is_written() -> None:
    """Of 200 MiB of room, 20 are written. The system may take other pages back meanwhile."""
    taken = [_taken_by_a_tenth() for _ in range(3)]
    assert any(19 << 20 < each < 60 << 20 for each in taken), taken


def _taken_by_a_tenth() -> int:
    tier = HostTier([Plane(128 * 128, torch.float32)] * 2)
    gc.collect()
    before = _resident()
    tier.make_room(1600)
    tier.write(torch.arange(160), tuple(torch.ones(2, 160, 128 * 128)))
    return _resident() - before


def _resident() -> int:
    with open("/proc/self/statm") as file:  # noqa: PTH123
        return int(file.read().split()[1]) * mmap.PAGESIZE


def test_without_memory_for_more_a_tier_stays_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiers, "_FIRST_BYTES", 4 * PAGE)
    tier = HostTier(PLANES)
    written(tier, torch.arange(4))

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("not enough memory")

    with monkeypatch.context() as patching:
        patching.setattr(tiers.torch, "empty", refuse)
        with pytest.raises(RuntimeError, match="not enough memory"):
            tier.make_room(6)
    written(tier, torch.arange(4, 6))
    assert torch.equal(tier.read(torch.arange(6))[0], rows_of(torch.arange(6))[0])


def test_a_slab_moves_while_others_read_and_write(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every thread finds what it wrote, whichever makes the slab move meanwhile."""
    monkeypatch.setattr(tiers, "_FIRST_BYTES", PAGE)
    tier = HostTier(PLANES)
    wrong: list[int] = []

    def work(thread: int) -> None:
        for step in range(120):
            written(tier, torch.tensor([4 * step + thread]))
            pages = torch.arange(thread, 4 * step + thread + 1, 4)
            if not torch.equal(tier.read(pages)[0], rows_of(pages)[0]):
                wrong.append(step)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("name", SLABS)
def test_addresses_follow_the_slabs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for size in ("_FIRST_BYTES", "_SLAB_BYTES"):
        monkeypatch.setattr(tiers, size, 2 * PAGE)
    if not torch.cuda.is_available():
        monkeypatch.setattr(PinnedTier, "pinned", False)
    tier = TIER.get(name)(PLANES)
    for pages in (1, 2, 3, 9):
        tier.make_room(pages)
        for part, known in enumerate(tier.addresses(torch.device("cpu"))):
            assert known.tolist() == [slab[part].data_ptr() for slab in tier._slabs]


def test_a_tier_is_not_written_anywhere() -> None:
    """Nor is what holds one; what is reserved would look like data."""
    tier = HostTier(PLANES)
    tier.make_room(3)
    for write in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(UnsupportedInputError, match="a HostTier cannot be"):
            write(tier)
    with pytest.raises(UnsupportedInputError, match="a HostTier cannot be"):
        pickle.dumps({"what has": [tier]})


class _OnGpu(torch.Tensor):
    is_cuda = True


def test_readers_wait_for_copies_that_the_host_did_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """With stand-ins for streams: every copy is behind those before it, and readers behind all."""
    told: list[str] = []

    def event(number: int) -> Any:
        return SimpleNamespace(number=number, synchronize=lambda: told.append(f"host {number}"))

    stream = SimpleNamespace(
        record_event=lambda: event(len(told)),
        wait_event=lambda past: told.append(f"stream {past.number}"),
    )
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: stream)
    monkeypatch.setattr(HostTier, "pinned", True)
    monkeypatch.setattr(HostTier, "_slab", lambda self, pages: (torch.zeros(pages, 20),))
    tier, rows = HostTier(PLANES[:1]), torch.randn(6, 20)
    tier.make_room(6)
    tier.write(torch.arange(3), (rows[:3],))
    tier.read(torch.arange(3))
    assert not told, "what comes from the host is there at once"
    for first in (0, 3):
        tier.write(torch.arange(first, first + 3), (rows[first : first + 3].as_subclass(_OnGpu),))
    assert told == ["stream 0"]
    assert torch.equal(tier.read(torch.arange(6))[0], rows)
    tier.addresses(torch.device("cpu"))
    assert told[1:] == ["host 1", "stream 1"]
