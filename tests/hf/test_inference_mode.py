"""A memory made under `torch.inference_mode` can be gone on with, forked and freed outside it."""

from __future__ import annotations

import gc
from typing import Any

import pytest
import torch

import inf_llm
from inf_llm.errors import InfLLMError
from tests.tiny import tiny_model

SETTINGS = {"n_init": 4, "n_local": 32, "block_size": 8, "topk": 2, "exc_block_size": 16}


@pytest.fixture
def model() -> Any:
    return inf_llm.patch(tiny_model(), type="inf-llm", **SETTINGS)


def test_goes_on_outside(model: Any) -> None:
    ids = torch.randint(3, 100, (1, 200), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted = model(ids).logits[:, -1]
    cache = inf_llm.new_cache(model)
    with torch.inference_mode():
        model(ids[:, :96], past_key_values=cache)
    twin = cache.fork()
    with torch.no_grad():
        got = [model(ids[:, 96:], past_key_values=each).logits[:, -1] for each in (cache, twin)]
    torch.testing.assert_close(got[0], wanted)
    torch.testing.assert_close(got[1], wanted)
    store = cache.memories[0].rows.members[0].memory.store
    del cache, twin
    gc.collect()
    assert store.used() == 0


def test_fattn_insists_on_a_fused_kernel() -> None:
    """Soft-capped scores have none on a CPU: refused with fattn, plain without."""
    from transformers import Gemma2Config, Gemma2ForCausalLM

    config = Gemma2Config(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        sliding_window=16,
        attn_logit_softcapping=20.0,
    )
    model = Gemma2ForCausalLM(config).eval()
    with pytest.raises(InfLLMError, match="set fattn to false"):
        inf_llm.patch(model, type="inf-llm", fattn=True, **SETTINGS)
    inf_llm.patch(model, type="inf-llm", **SETTINGS)
