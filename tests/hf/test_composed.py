"""A composed cache feeds the memories themselves, and copies nothing that is sealed."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import inf_llm
from inf_llm.hf.composed import Part, compose, feed_together
from inf_llm.hf.decoder import with_cache
from inf_llm.hf.generate import answering
from tests.hf.families import build
from tests.hf.zoo import WORKING

MEMORY = {"n_local": 32, "n_init": 4, "exc_block_size": 16, "block_size": 8, "topk": 2}
MEMORY |= {"repr_topk": 2, "max_cached_block": 3}
LENGTHS = (150, 33, 80, 150)
FAMILIES = ["llama", "qwen2", "gemma3", "deepseek_v3", "lfm2", "qwen3_next"]
RECURRENT = {"lfm2", "qwen3_next"}


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
            parts = [
                Part(*each) for each in zip(caches, ([token] for token in tokens), strict=True)
            ]
            logits = feed_together(model, parts)
        expected = torch.stack([_alone(model, *each) for each in zip(alone, tokens, strict=True)])
        torch.testing.assert_close(logits, expected, atol=2e-5, rtol=2e-4)
        tokens = logits.argmax(-1).tolist()
    assert [cache.get_seq_length() for cache in caches] == [length + 20 for length in LENGTHS]


def _ids(count: int, seed: int) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(2, 128, (count,), generator=generator).tolist()


@torch.no_grad()
def _fed_alone(model: Any, part: Part) -> torch.Tensor:
    with answering(part.prompt_end):
        ids = torch.tensor([part.tokens])
        return model(input_ids=ids, **with_cache(model, part.cache)).logits[0, -1]


@pytest.mark.parametrize("name", [name for name in FAMILIES if name in WORKING])
def test_a_chunk_takes_single_tokens_and_the_ends_of_prompts_along(name: str) -> None:
    """The last token of a prompt that is answered chooses its blocks alone."""
    model = inf_llm.patch(build(WORKING[name]), **MEMORY)
    caches = [_read(model, length, seed) for seed, length in enumerate((160, 96, 80, 33))]
    caches.append(inf_llm.new_cache(model))  # nothing of this one is read yet
    if name in RECURRENT:
        assert not compose(caches, single=False)
        return
    assert compose(caches, single=False)
    alone = [cache.fork() for cache in caches]
    counts = (16, 1, 5, 1, 9)
    for turn in range(6):
        tokens = [_ids(count, 10 * turn + at) for at, count in enumerate(counts)]
        ends = [None, None, caches[2].get_seq_length() + 5, None, None]
        with torch.no_grad():
            logits = feed_together(model, list(map(Part, caches, tokens, ends)))
        expected = torch.stack([_fed_alone(model, part) for part in map(Part, alone, tokens, ends)])
        torch.testing.assert_close(logits, expected, atol=2e-5, rtol=2e-4)
        assert [c.get_seq_length() for c in caches] == [c.get_seq_length() for c in alone]


def test_control_the_end_of_a_prompt_matters() -> None:
    """Without it the last token of the prompt has other blocks, and so another answer."""
    model = inf_llm.patch(build(WORKING["llama"]), **MEMORY)
    cache = _read(model, 160, 0)
    tokens, other = _ids(9, 1), _read(model, 80, 2)
    with torch.no_grad():
        right, wrong = (
            feed_together(model, [Part(cache.fork(), tokens, end), Part(other.fork(), [5])])
            for end in (169, None)
        )
    torch.testing.assert_close(right[1], wrong[1])
    assert not torch.allclose(right[0], wrong[0], atol=1e-3)


def test_what_does_not_compose() -> None:
    model = inf_llm.patch(build(WORKING["llama"]), **MEMORY)
    other = inf_llm.patch(build(WORKING["llama"]), **MEMORY)
    first, second = _read(model, 40, 0), _read(other, 40, 0)
    assert compose([first, _read(model, 90, 1)])
    assert not compose([first, second])  # of another patch
    assert not compose([first, inf_llm.new_cache(model)])  # has read nothing
    assert compose([first, inf_llm.new_cache(model)], single=False)
    recording = first.fork()
    recording.activate_past_recording()
    assert not compose([first, recording])
    assert not compose([first, recording], single=False)
