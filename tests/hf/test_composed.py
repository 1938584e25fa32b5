"""A composed cache feeds the memories themselves, and copies nothing that is sealed."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import inf_llm
from inf_llm.hf.composed import compose, feed_together
from inf_llm.hf.decoder import with_cache
from tests.hf.families import build
from tests.hf.zoo import WORKING

MEMORY = {"n_local": 32, "n_init": 4, "exc_block_size": 16, "block_size": 8, "topk": 2}
MEMORY |= {"repr_topk": 2, "max_cached_block": 3}
LENGTHS = (150, 33, 80, 150)
FAMILIES = ["llama", "qwen2", "gemma3", "deepseek_v3", "lfm2", "qwen3_next"]


@torch.no_grad()
def _read(model: Any, length: int, seed: int) -> Any:
    ids = torch.randint(2, 128, (1, length), generator=torch.Generator().manual_seed(seed))
    cache = inf_llm.new_cache(model)
    for part in ids.split(16, 1):
        model(input_ids=part, logits_to_keep=1, **with_cache(model, cache))
    return cache


@torch.no_grad()
def _alone(model: Any, cache: Any, token: int) -> torch.Tensor:
    return model(input_ids=torch.tensor([[token]]), **with_cache(model, cache)).logits[0, -1]


@pytest.mark.parametrize("name", [name for name in FAMILIES if name in WORKING])
def test_each_row_is_as_alone(name: str) -> None:
    model = inf_llm.patch(build(WORKING[name]), **MEMORY)
    caches = [_read(model, length, seed) for seed, length in enumerate(LENGTHS)]
    alone = [cache.fork() for cache in caches]
    states = [vars(layer).get("conv_states", {}) for layer in caches[0].layers]
    if not all(isinstance(state, dict) for state in states):
        assert not compose(caches), "this release of transformers keeps states in another form"
        return
    assert compose(caches)
    tokens = [5, 6, 7, 8]
    for _ in range(20):
        with torch.no_grad():
            logits = feed_together(model, caches, tokens)
        expected = torch.stack([_alone(model, *each) for each in zip(alone, tokens, strict=True)])
        torch.testing.assert_close(logits, expected, atol=2e-5, rtol=2e-4)
        tokens = logits.argmax(-1).tolist()
    assert [cache.get_seq_length() for cache in caches] == [length + 20 for length in LENGTHS]


def test_what_does_not_compose() -> None:
    model = inf_llm.patch(build(WORKING["llama"]), **MEMORY)
    other = inf_llm.patch(build(WORKING["llama"]), **MEMORY)
    first, second = _read(model, 40, 0), _read(other, 40, 0)
    assert compose([first, _read(model, 90, 1)])
    assert not compose([first, second])  # of another patch
    assert not compose([first, inf_llm.new_cache(model)])  # has read nothing
    recording = first.fork()
    recording.activate_past_recording()
    assert not compose([first, recording])
