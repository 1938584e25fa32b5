"""A cache or a module that belongs to one patch is refused where that patch is not in force."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch

import inf_llm
from inf_llm.errors import UnsupportedInputError
from inf_llm.generation.session import Session
from inf_llm.hf.cache import MemoryCache
from inf_llm.hf.decoder import cache_argument
from tests.hf.tiny import LONG, character_tokenizer, feed, generate, tiny, tiny_patched, tokens

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


def _another_rotary(model: Any, other: Any) -> None:
    model.model.rotary_emb = other.model.rotary_emb


def _another_layer(model: Any, other: Any) -> None:
    model.model.layers[1] = other.model.layers[1]


def _another_attention(model: Any, other: Any) -> None:
    model.model.layers[1].self_attn = other.model.layers[1].self_attn


def _another_implementation(model: Any, other: Any) -> None:
    model.model.layers[1].self_attn.config = other.config


def _another_copy(model: Any, other: Any) -> None:
    model.model.layers[1] = copy.deepcopy(model).model.layers[1]


CHANGES = [_another_rotary, _another_layer, _another_attention, _another_implementation]


@pytest.mark.parametrize("change", [*CHANGES, _another_copy])
@pytest.mark.parametrize("use_cache", [True, False], ids=["cache", "no-cache"])
def test_a_module_put_in_after_the_patch_is_refused(
    change: Callable[[Any, Any], None], use_cache: bool
) -> None:
    model = tiny_patched()
    change(model, tiny())
    for call in (lambda: model(TEXT, use_cache=use_cache), lambda: generate(model, TEXT)):
        with pytest.raises(UnsupportedInputError, match=r"after inf_llm.patch|outside its decoder"):
            call()


def test_under_moved_positions_another_rotary_module_is_refused_too() -> None:
    model = inf_llm.patch(tiny(), **MOVED)
    _another_rotary(model, tiny())
    with pytest.raises(UnsupportedInputError, match="rotary_emb of this LlamaModel was changed"):
        model(TEXT)


def test_a_memory_fed_in_part_is_refused() -> None:
    model = tiny_patched()
    cache, layer = inf_llm.new_cache(model), model.model.layers[1]
    _another_layer(model, tiny())
    with pytest.raises(UnsupportedInputError, match="layer 1 of this LlamaModel"):
        feed(model, TEXT, cache)
    model.model.layers[1] = layer
    with pytest.raises(UnsupportedInputError, match="some layers have seen 40 tokens, others 0"):
        feed(model, TEXT, cache)


def test_layers_may_be_taken_off_the_end_and_wrapped() -> None:
    model, shorter = tiny_patched(), tiny()
    shorter.model.layers = shorter.model.layers[:-1]
    shorter.config.num_hidden_layers -= 1
    inf_llm.patch(shorter, type="inf-llm", **LONG)
    model.model.layers = model.model.layers[:-1]
    model.config.num_hidden_layers -= 1
    model.model.layers[0] = torch.compile(model.model.layers[0], backend="eager")
    assert torch.equal(generate(model, TEXT), generate(shorter, TEXT))


def test_a_refused_feed_leaves_a_cache_closed_to_others() -> None:
    model = tiny_patched()
    cache = inf_llm.new_cache(model)
    with pytest.raises(UnsupportedInputError, match="output_attentions"):
        model(TEXT, past_key_values=cache, output_attentions=True)
    feed(model, TEXT, cache)
    with pytest.raises(UnsupportedInputError, match=r"made under inf_llm\.patch"):
        feed(torch.compile(tiny(), backend="eager"), TEXT, cache)
