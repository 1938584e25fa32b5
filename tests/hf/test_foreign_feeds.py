"""A cache or a module that belongs to one patch is refused where that patch is not in force."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import inf_llm
from inf_llm.errors import UnsupportedInputError
from inf_llm.generation.session import Session
from inf_llm.hf.cache import MemoryCache
from inf_llm.hf.decoder import cache_argument
from tests.hf.tiny import character_tokenizer, feed, generate, tiny, tiny_patched, tokens

TEXT = tokens(40)


def _memory(family: str = "llama") -> MemoryCache:
    model = tiny_patched(family)
    cache = inf_llm.new_cache(model)
    feed(model, TEXT, cache)
    return cache


@pytest.mark.parametrize("family", ["llama", "gemma3", "qwen3_next"])
@pytest.mark.parametrize("count", [1, 5])
@pytest.mark.parametrize("patched", [False, True], ids=["unpatched", "origin"])
def test_a_memory_is_refused_by_a_model_without_its_patch(
    family: str, count: int, patched: bool
) -> None:
    cache, model = _memory(family), tiny(family)
    if patched:
        inf_llm.patch(model, type="origin")
    with pytest.raises(UnsupportedInputError, match="made under inf_llm.patch"):
        feed(model, tokens(count), cache)
    with pytest.raises(UnsupportedInputError, match="made under inf_llm.patch"):
        generate(model, tokens(40 + count), **{cache_argument(model): cache})
    assert cache.get_seq_length() == 40


def test_an_unpatched_session_says_so() -> None:
    model = tiny_patched()
    session = Session(model, character_tokenizer())
    session.read("a" * 60)
    inf_llm.unpatch(model)
    with pytest.raises(UnsupportedInputError, match="made under inf_llm.patch"):
        session.ask("b", max_new_tokens=2)
