"""What the process holds beside tensors is bounded."""

from __future__ import annotations

import os

import pytest

from inf_llm.serve import heap
from inf_llm.serve.heap import bound_heap


def test_a_setting_of_the_environment_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    name, value = heap.PRIMITIVES
    monkeypatch.setattr(heap, "_LARGE", 32 << 20)
    monkeypatch.setenv(name, "7")
    bound_heap()
    assert os.environ[name] == "7"
    monkeypatch.delenv(name)
    bound_heap()
    assert os.environ[name] == value
    monkeypatch.delenv(name)
