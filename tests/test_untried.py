"""What has not run on a GPU says so when it is used there, once; devices without float64."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from inf_llm import kernels, rope
from inf_llm.kernels import Scoring
from inf_llm.memory import slot_table
from inf_llm.memory.codec import Plane
from inf_llm.memory.tiers import PinnedTier
from inf_llm.untried import untried
from tests.layers import feed, make_memory_layer, random_qkv

PACKAGE = Path(kernels.__file__).parent.parent


@pytest.fixture(autouse=True)
def _nothing_said_yet() -> None:
    untried.cache_clear()


def test_once_and_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    for path in ("one path", "one path", "another"):
        untried(path)
    assert [record.getMessage().split(":")[0] for record in caplog.records] == [
        "one path",
        "another",
    ]
    assert all("\n" not in record.getMessage() for record in caplog.records)
    assert all(record.levelno == logging.WARNING for record in caplog.records)


def test_pinned_memory_says_so(caplog: pytest.LogCaptureFixture) -> None:
    PinnedTier((Plane(32, torch.float32),))
    assert "pinned" in caplog.text


def test_kernels_say_so_on_a_gpu_and_the_reference_does_not(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen: list[Any] = [kernels.reference, kernels._load("flex")]
    monkeypatch.setattr(kernels, "_choose", lambda *_: chosen[0])
    on_gpu: Any = SimpleNamespace(is_cuda=True)
    on_cpu: Any = SimpleNamespace(is_cuda=False)
    assert kernels._pick(Scoring(1.0), on_gpu) is chosen.pop(0)
    assert kernels._pick(Scoring(1.0), on_cpu) is chosen[0]
    assert not caplog.records
    assert kernels._pick(Scoring(1.0), on_gpu) is chosen[0]
    assert "the kernel 'flex'" in caplog.text


def test_nothing_is_said_on_a_cpu(caplog: pytest.LogCaptureFixture) -> None:
    feed(make_memory_layer(slots=True), random_qkv(100))
    assert not caplog.records


def test_what_says_it_has_not_run_is_announced() -> None:
    """A module that admits it in its own words calls `untried`, or is a kernel, which `_pick`
    announces."""
    for file in PACKAGE.rglob("*.py"):
        text = file.read_text(encoding="utf-8")
        admits = re.search(r"NOT YET\s+RUN", text)
        announced = "untried(" in text or file.parent.name == "kernels"
        assert not admits or announced, file


class _NoFloat64(TorchDispatchMode):
    """Fails where an operation makes a float64 tensor, but for exact angles on the host."""

    exact = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for part in made if isinstance(made, tuple | list) else (made,):
            wide = torch.is_tensor(part) and part.dtype == torch.float64
            assert self.exact or not wide, f"{func} makes float64"
        return made


@pytest.mark.parametrize("kind", ["lru", "fifo", "lru-s"])
def test_memory_computes_where_there_is_no_float64(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slots on the device, as any device but a CPU has them; the results are the same."""
    text = random_qkv(200)
    plain, wide, narrow = (make_memory_layer(slots=True, cache_strategy=kind) for _ in range(3))
    wanted, watch, compute = feed(plain, text), _NoFloat64(), rope.Rope._compute

    def exactly(*args: Any) -> Any:
        watch.exact = True
        try:
            return compute(*args)
        finally:
            watch.exact = False

    monkeypatch.setattr(rope.Rope, "_compute", exactly)
    with pytest.raises(AssertionError, match="makes float64"), watch:
        feed(wide, text)
    monkeypatch.setattr(slot_table, "clock_dtype", lambda device: torch.float32)
    with watch:
        assert torch.equal(feed(narrow, text), wanted)


def test_devices_without_float64() -> None:
    mps, cpu = torch.device("mps"), torch.device("cpu")
    assert rope.exact_device(mps) == cpu
    clocks = slot_table.clock_dtype(mps), slot_table.clock_dtype(cpu)
    assert clocks == (torch.float32, torch.float64)
