"""The rules that are compared, and what cannot be."""

from __future__ import annotations

from typing import Any

import pytest

from inf_llm.errors import SettingsError
from inf_llm.fidelity.readers import FULL, WINDOW, CacheFactory, Reader, baselines
from inf_llm.settings import make_settings
from tests.fidelity.conftest import settings


def test_the_baselines_are_full_attention_and_the_windows_of_the_first() -> None:
    full, window = baselines(Reader("a", settings(base=1e5)))
    assert (full.name, window.name) == (FULL, WINDOW)
    assert full.settings.base is None
    assert window.settings.type == "stream-lm"
    window_settings = window.settings
    assert (window_settings.n_init, window_settings.n_local, window_settings.base) == (16, 64, 1e5)
    assert full.settings.n_local > 1 << 29


def test_an_oracle_needs_blocks() -> None:
    stream: Any = make_settings("stream-lm", n_init=4, n_local=64)
    with pytest.raises(SettingsError, match="type 'stream-lm' has none"):
        Reader("oracle", stream, oracle=True)
    assert Reader("oracle", settings(), oracle=True).record()["type"] == "oracle"


def test_names_and_kernels_must_agree(model: Any) -> None:
    first = Reader("a", settings())
    with pytest.raises(SettingsError, match="two rules are called 'a'"):
        CacheFactory(model, [*baselines(first), first, first])
    other = Reader("b", settings(kernel="reference"))
    with pytest.raises(SettingsError, match="kernels auto, reference"):
        CacheFactory(model, [*baselines(first), first, other])
