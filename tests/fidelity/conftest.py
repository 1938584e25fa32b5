"""A tiny model with sharp attention, rules that a text of some hundred tokens goes far beyond."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import inf_llm
from inf_llm.demo import haystack_text
from inf_llm.fidelity.drafts import Source
from inf_llm.fidelity.readers import CacheFactory, Reader, baselines
from inf_llm.fidelity.tasks import ContextBuilder
from inf_llm.generation.layout import PlainLayout
from inf_llm.needles.haystack import haystack_of
from inf_llm.settings import WindowSettings, make_settings
from tests.tiny import SETTINGS, tiny_model, tiny_tokenizer

EVERYTHING = {"topk": 256, "max_cached_block": 256}
"""More blocks than there are."""


def settings(**changes: Any) -> WindowSettings:
    """Of inf-llm, small."""
    made = make_settings("inf-llm", **{**SETTINGS, **changes})
    assert isinstance(made, WindowSettings)
    return made


@pytest.fixture(scope="module")
def readers() -> list[Reader]:
    """Two memories, one that recalls everything, and an oracle."""
    return [
        Reader("few", settings()),
        Reader("all", settings(**EVERYTHING)),
        Reader("oracle", settings(), oracle=True),
    ]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return tiny_tokenizer()


@pytest.fixture
def model() -> Any:
    return tiny_model()


@pytest.fixture
def caches(model: Any, readers: list[Reader]) -> Iterator[CacheFactory]:
    """The model under one patch."""
    yield CacheFactory(model, [*baselines(readers[0]), *readers])
    inf_llm.unpatch(model)


@pytest.fixture(scope="module")
def workshop(tokenizer: Any) -> ContextBuilder:
    """Contexts of at most 1,500 tokens, which are bytes here, with two questions each."""
    source = Source(haystack_of(haystack_text()), 2)
    return ContextBuilder(tokenizer, PlainLayout(), source, 1500, 0)
