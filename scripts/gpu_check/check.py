"""The device and the sizes of a step, the error for a difference, and the embedded model."""

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
    """Two ways to compute the same result differ; `figures` has the figures measured so far."""

    def __init__(self, message: str, figures: Figures) -> None:
        super().__init__(message)
        self.figures = figures


@dataclasses.dataclass(frozen=True)
class Check:
    """The device and the sizes of a step.

    Attributes:
        device: `cuda:0`, or `cpu`.
        small: whether sizes are small, to try this script on a CPU.
    """

    device: torch.device
    small: bool

    def timed(self, work: Callable[[], Any], times: int = 5) -> tuple[Any, float]:
        """Return the result of `work` and its shortest time in ms, without the first run."""
        best, result = float("inf"), work()
        for _ in range(times):
            self.wait()
            before = time.perf_counter()
            result = work()
            self.wait()
            best = min(best, 1e3 * (time.perf_counter() - before))
        return result, round(best, 4)

    def wait(self) -> None:
        """Wait until the device has finished its queued work."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def load(kind: str, device: torch.device, *overrides: str) -> tuple[Any, Any]:
    """Return the embedded model, with an attention type, and its tokenizer, on a device."""
    name = {"stream-lm": "stream-llm"}.get(kind, kind)
    place = [f"model.device_map={device}", *overrides]
    return inf_llm.load(SHIPPED_CONFIGS / f"demo-{name}.yaml", place)
