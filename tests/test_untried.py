"""What has not run on a GPU says so when it is used there, once; devices without float64."""

from __future__ import annotations

import logging
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from inf_llm import kernels, rope
from inf_llm.kernels import Scoring, flash_attn
from inf_llm.memory import slot_table
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


def test_a_kernel_that_has_not_run_says_so(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = ModuleType("flash_attn")
    package.flash_attn_func = lambda q, *rest, **more: (q, q[..., 0].transpose(1, 2))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "flash_attn", package)
    flash_attn.attend(*[torch.zeros(1, 2, 3, 8)] * 3, Scoring(1.0))
    assert "the kernel 'flash-attn'" in caplog.text


def test_nothing_is_said_on_a_cpu(caplog: pytest.LogCaptureFixture) -> None:
    feed(make_memory_layer(slots=True), random_qkv(100))
    assert not caplog.records


def test_what_says_it_has_not_run_is_announced() -> None:
    """A module that admits it in its own words calls `untried`."""
    for file in PACKAGE.rglob("*.py"):
        text = file.read_text(encoding="utf-8")
        assert not re.search(r"NOT YET\s+RUN", text) or "untried(" in text, file


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
    wanted, watch, compute = feed(plain, text), _NoFloat64(), rope.Rope.table

    def exactly(*args: Any) -> Any:
        watch.exact = True
        try:
            return compute(*args)
        finally:
            watch.exact = False

    monkeypatch.setattr(rope.Rope, "table", exactly)
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
