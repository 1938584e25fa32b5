"""Tiny models of several families, and a text read by each."""

from __future__ import annotations

from typing import Any

import torch

import inf_llm
from inf_llm.config import ModelConfig, RunConfig
from inf_llm.generation.prefill import empty_cache, feed_length, held, prefill
from inf_llm.hf.outline import Outline, activations, layer_shapes
from inf_llm.memory.stats import MemoryStats
from inf_llm.settings import OriginSettings, make_settings
from tests.hf.families import build
from tests.hf.zoo import WORKING

FAMILIES = ("llama", "qwen2", "gemma3", "mixtral", "deepseek_v2", "olmo_hybrid")
"""Key heads shared; alike; windows of its own; experts; wider keys than values; linear layers."""

TYPES: dict[str, dict[str, Any]] = {
    "origin": {},
    "stream-lm": {"n_init": 8, "n_local": 100},
    "infinite-lm": {"n_init": 8, "n_local": 100},
    "middle": {"type": "infinite-lm", "n_init": 8, "n_local": 100, "topk_middle": 4},
    "inf-llm": {
        "n_init": 8,
        "n_local": 100,
        "block_size": 16,
        "topk": 3,
        "max_cached_block": 4,
        "exc_block_size": 32,
    },
}


def settings_of(kind: str, **more: Any) -> OriginSettings:
    """Settings of a type that a text of some thousand tokens goes far beyond."""
    values = {"type": kind, **TYPES[kind], **more}
    return make_settings(**values)


def family(name: str) -> Any:
    """A tiny random model."""
    return build(WORKING[name])


def outline_of(model: Any) -> Outline:
    """What `outline` finds of a saved model, of one that is loaded."""
    numbers = sum(weight.numel() for weight in model.parameters())
    computes = activations(model.config)
    return Outline(layer_shapes(model), numbers, torch.float32, activations=computes)


def config_of(settings: OriginSettings) -> RunConfig:
    """A configuration of these settings."""
    return RunConfig(ModelConfig("demo", dtype="float32"), settings)


@torch.no_grad()
def read(model: Any, settings: OriginSettings, tokens: int) -> MemoryStats:
    """What is held after so many tokens, counted by what holds it."""
    inf_llm.patch(model, settings)
    try:
        cache = empty_cache(model)
        ids = torch.randint(3, 100, (1, tokens), generator=torch.Generator().manual_seed(0))
        for _ in prefill(model, ids, cache, feed_length(model, 256)):
            pass
        return held(cache)
    finally:
        inf_llm.unpatch(model)
