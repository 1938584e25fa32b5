"""Where a step computes, and how its figures and faults are said."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import torch

import inf_llm
from inf_llm.config import SHIPPED_CONFIGS

KINDS = ("origin", "infinite-lm", "stream-lm", "inf-llm")
Figures = dict[str, Any]


class DifferenceError(Exception):
    """Two ways to compute the same differ; `figures` are what was measured until then."""

    def __init__(self, message: str, figures: Figures) -> None:
        super().__init__(message)
        self.figures = figures


@dataclasses.dataclass(frozen=True)
class Check:
    """Where to compute, and whether in small.

    Attributes:
        device: `cuda:0`, or `cpu`.
        small: sizes for trying this script on a CPU.
    """

    device: torch.device
    small: bool

    def timed(self, work: Callable[[], Any], times: int = 5) -> tuple[Any, float]:
        """What it gives, and the shortest of its times in milliseconds, the first left out."""
        best, result = float("inf"), work()
        for _ in range(times):
            self.wait()
            before = time.perf_counter()
            result = work()
            self.wait()
            best = min(best, 1e3 * (time.perf_counter() - before))
        return result, round(best, 4)

    def wait(self) -> None:
        """Until the device has done what it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def load(kind: str, device: torch.device, *overrides: str) -> tuple[Any, Any]:
    """The embedded model with a type, on a device."""
    name = {"stream-lm": "stream-llm"}.get(kind, kind)
    place = [f"model.device_map={device}", *overrides]
    return inf_llm.load(SHIPPED_CONFIGS / f"demo-{name}.yaml", place)
