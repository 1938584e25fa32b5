"""What a patch leaves on modules tells those that were put in since."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch

import inf_llm
from inf_llm.errors import UnsupportedInputError
from tests.hf.tiny import LONG, feed, generate, tiny, tiny_patched, tokens

TEXT = tokens(40)

MOVED: dict[str, Any] = {"type": "origin", "scaling": "linear", "scaling_factor": 4.0}


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
