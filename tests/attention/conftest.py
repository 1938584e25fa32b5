"""Fixtures of the attention tests."""

from __future__ import annotations

from typing import Any

import pytest
import torch


def _filled(make: Any) -> Any:
    def full_of_nan(*args: Any, **kwargs: Any) -> torch.Tensor:
        fresh = make(*args, **kwargs)
        return fresh.fill_(torch.nan) if fresh.is_floating_point() else fresh

    return full_of_nan


@pytest.fixture
def poisoned_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fresh memory is full of NaN, as it may be."""
    for owner, name in ((torch, "empty"), (torch, "empty_like"), (torch.Tensor, "new_empty")):
        monkeypatch.setattr(owner, name, _filled(getattr(owner, name)))
    monkeypatch.setattr("inf_llm.memory.tiers._SLAB_BYTES", 1 << 20)
