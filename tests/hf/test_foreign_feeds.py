"""A cache or a module that belongs to one patch is refused where that patch is not in force."""

from __future__ import annotations

import copy
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
    with pytest.raises(UnsupportedInputError, match=r"made under inf_llm\.patch"):
        feed(model, tokens(count), cache)
    options: dict[str, Any] = {cache_argument(model): cache}
    with pytest.raises(UnsupportedInputError, match=r"made under inf_llm\.patch"):
        generate(model, tokens(40 + count), **options)
    assert cache.get_seq_length() == 40


def test_an_unpatched_session_says_so() -> None:
    model = tiny_patched()
    session = Session(model, character_tokenizer())
    session.read("a" * 60)
    inf_llm.unpatch(model)
    with pytest.raises(UnsupportedInputError, match=r"made under inf_llm\.patch"):
        session.ask("b", max_new_tokens=2)


MOVED: dict[str, Any] = {"type": "origin", "scaling": "linear", "scaling_factor": 4.0}


def _origin_cache(**settings: Any) -> Any:
    model = tiny()
    if settings:
        inf_llm.patch(model, **settings)
    with torch.no_grad():
        return model(TEXT, use_cache=True).past_key_values


@pytest.mark.parametrize("made", [MOVED, {}, {"type": "origin"}, {**MOVED, "scaling_factor": 2.0}])
@pytest.mark.parametrize("used", [MOVED, {}, {"type": "origin"}])
def test_a_cache_is_used_only_with_the_positions_it_was_made_with(
    made: dict[str, Any], used: dict[str, Any]
) -> None:
    model, more = tiny(), tokens(4, seed=1)
    cache = copy.deepcopy(_origin_cache(**made))
    if used:
        inf_llm.patch(model, **used)
    if made == used or "scaling" not in made | used:
        got = feed(model, more, cache)
        whole = model(torch.cat((TEXT, more), 1)).logits[:, -4:]
        torch.testing.assert_close(got, whole, atol=1e-4, rtol=1e-4)
        generate(model, torch.cat((TEXT, more), 1), **{cache_argument(model): cache})
        return
    with pytest.raises(UnsupportedInputError, match=r"at other positions|made under inf_llm.patch"):
        feed(model, more, cache)
    assert cache.get_seq_length() == 40
