"""Which releases a refusal names, and what it says to try."""

from __future__ import annotations

from typing import Any

import pytest

import inf_llm
from inf_llm.errors import UnsupportedModelError
from inf_llm.hf import versions
from tests.hf.controls import WRONG
from tests.hf.tiny import SHORT, tiny


def patch(model: Any) -> Any:
    return inf_llm.patch(model, type="inf-llm", **SHORT)


def test_a_refusal_names_the_versions_and_what_to_try(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny()
    with WRONG["scale"](model), pytest.raises(UnsupportedModelError) as told:
        patch(model)
    assert "transformers 5." in str(told.value)
    assert "torch 2." in str(told.value)
    assert "type 'origin'" in str(told.value)
    monkeypatch.setattr(versions.transformers, "__version__", "7.1.0")
    with WRONG["scale"](model), pytest.raises(UnsupportedModelError, match=r"newer than 5\.24"):
        patch(model)
