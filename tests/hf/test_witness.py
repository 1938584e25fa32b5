"""Whether a feed that broke off had begun to change a cache."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import DynamicCache

from inf_llm.hf.witness import Witness
from tests.hf.families import exists
from tests.hf.tiny import feed, read, tiny, tiny_patched, tokens
from tests.hf.zoo import WORKING


@pytest.mark.parametrize("family", ["llama", "lfm2", "qwen3_5"])
def test_a_witness_sees_that_a_layer_was_fed(family: str) -> None:
    if not exists(WORKING[family]):
        pytest.skip(f"this transformers cannot feed {family} in parts")
    model = tiny_patched(family)
    cache = read(model, 96)
    witness = Witness(cache)
    twin = cache.fork()
    assert witness.unchanged()
    feed(model, tokens(1), twin)
    assert witness.unchanged()
    feed(model, tokens(1), cache)
    assert not witness.unchanged()


def test_a_witness_sees_the_first_layer_of_a_plain_cache() -> None:
    model, cache = tiny(), DynamicCache()
    for count in (5, 1, 1):
        witness = Witness(cache)
        assert witness.unchanged()
        with pytest.raises(ZeroDivisionError):
            _feed_one_layer(model, cache, count)
        assert not witness.unchanged()


def test_under_inference_mode_a_plain_cache_counts_as_fed() -> None:
    """There is no telling, so the safe answer is given."""
    model, cache = tiny(), DynamicCache()
    with torch.inference_mode():
        model(tokens(5), past_key_values=cache)
        assert not Witness(cache).unchanged()


def _feed_one_layer(model: Any, cache: DynamicCache, count: int) -> None:
    hook = model.model.layers[0].register_forward_hook(lambda *_: 1 / 0)
    try:
        model(tokens(count), past_key_values=cache, use_cache=True)
    finally:
        hook.remove()
