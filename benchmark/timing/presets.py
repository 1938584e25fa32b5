"""Presets of the speed measurements: model, settings and lengths."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from inf_llm.config import RunConfig
from inf_llm.errors import InfLLMError
from inf_llm.hf.load import load_model
from inf_llm.registry import accepted
from inf_llm.settings import InfLLMSettings, StreamLMSettings

K = 1024


@dataclass(frozen=True)
class Preset:
    """One set of sizes and settings.

    Attributes:
        model: arguments of `LlamaConfig`. The weights are random. This does not change the amount
            of computation, but nearly all recalled blocks change from token to token, which is
            the worst case for loading blocks.
        memory: settings of inf-llm.
        device: device of the model.
        dtype: dtype of weights, keys and values.
        lengths: context lengths at which decoding is measured.
        chunk: number of prompt tokens per forward pass.
        types: attention types that are compared by default.
        origin_prefill: longest prompt that full attention reads.
        origin_decode: longest context from which full attention decodes; beyond `origin_prefill`
            its cache is filled with random numbers.
        slow_limit: longest context for the reference kernel.
        target: name of the set of ratios with limits for the figures (see `ratios`).
        source: a configuration whose model is timed instead of one with random weights.
    """

    model: dict[str, Any]
    memory: InfLLMSettings
    device: str
    dtype: torch.dtype
    lengths: tuple[int, ...]
    chunk: int
    types: tuple[str, ...]
    origin_prefill: int
    origin_decode: int
    slow_limit: int
    target: str
    source: RunConfig | None = None

    @property
    def window(self) -> StreamLMSettings:
        """The settings of stream-lm with as many visible tokens as inf-llm has."""
        memory = self.memory
        visible = memory.n_local + memory.topk * memory.block_size
        return StreamLMSettings(n_init=memory.n_init, n_local=visible)


_CPU = Preset(
    model={
        "hidden_size": 512,
        "intermediate_size": 1408,
        "num_hidden_layers": 8,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "head_dim": 64,
        "vocab_size": 4096,
        "tie_word_embeddings": True,
    },
    memory=InfLLMSettings(n_local=1024, n_init=64, block_size=64, topk=8, exc_block_size=256),
    device="cpu",
    dtype=torch.float32,
    lengths=(8 * K, 16 * K, 32 * K, 64 * K, 128 * K, 256 * K, 512 * K),
    chunk=K,
    types=("origin", "stream-lm", "inf-llm", "inf-llm:reference"),
    origin_prefill=64 * K,
    origin_decode=128 * K,
    slow_limit=16 * K,
    target="cpu",
)

PRESETS: dict[str, Preset] = {
    "cpu": _CPU,
    "h200": Preset(
        model={
            "hidden_size": 4096,
            "intermediate_size": 14336,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "vocab_size": 128256,
            "rope_theta": 500000.0,
            "tie_word_embeddings": False,
        },
        memory=InfLLMSettings(
            n_local=4096,
            n_init=128,
            block_size=128,
            topk=16,
            exc_block_size=512,
            async_global_stream=True,
        ),
        device="cuda",
        dtype=torch.bfloat16,
        lengths=(4 * K, 8 * K, 16 * K, 32 * K, 64 * K, 128 * K, 256 * K, 512 * K, K * K),
        chunk=8 * K,
        types=("origin", "stream-lm", "inf-llm", "inf-llm:triton", "inf-llm:reference"),
        origin_prefill=128 * K,
        origin_decode=256 * K,
        slow_limit=128 * K,
        target="h200",
    ),
    "tiny": dataclasses.replace(
        _CPU,
        model={
            **_CPU.model,
            "hidden_size": 64,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "head_dim": 16,
            "vocab_size": 256,
        },
        memory=InfLLMSettings(n_local=32, n_init=4, block_size=8, topk=2, exc_block_size=16),
        lengths=(128, 256),
        chunk=64,
        origin_prefill=128,
        origin_decode=256,
        slow_limit=128,
        target="none",
    ),
}


def preset(name: str) -> Preset:
    """Return a preset by name.

    Raises:
        InfLLMError: there is no preset of this name, or its device is absent.
    """
    if name not in PRESETS:
        raise InfLLMError(f"--preset {name!r} is not known; {accepted(name, PRESETS)}")
    chosen = PRESETS[name]
    if chosen.device == "cuda" and not torch.cuda.is_available():
        raise InfLLMError(f"--preset {name} needs a CUDA device and there is none: use cpu")
    return chosen


def preset_of(config: RunConfig) -> Preset:
    """Return a preset with the model, attention settings and chunk size of a configuration.

    Raises:
        InfLLMError: the type of the configuration is not inf-llm.
    """
    if not isinstance(config.attention, InfLLMSettings):
        raise InfLLMError(
            f"--config {config.source} has type {config.attention.type!r}: a configuration of "
            "type 'inf-llm' is needed, whose settings the other types are derived from"
        )
    return dataclasses.replace(
        PRESETS["cpu"],
        model={},
        memory=config.attention,
        device="cuda" if torch.cuda.is_available() else "cpu",
        lengths=(4 * K, 16 * K),
        chunk=min(config.chunk_size, K),
        types=("origin", "stream-lm", "inf-llm"),
        target="none",
        source=config,
    )


def build_model(chosen: Preset, seed: int) -> PreTrainedModel:
    """Return the configuration's model or a model with random weights, on its device."""
    if chosen.source is not None:
        return load_model(chosen.source).requires_grad_(False)
    torch.manual_seed(seed)
    config = LlamaConfig(**chosen.model, max_position_embeddings=1 << 24)
    config._attn_implementation = "sdpa"
    before = torch.get_default_dtype()
    torch.set_default_dtype(chosen.dtype)
    try:
        with torch.device(chosen.device):
            model = LlamaForCausalLM(config)
    finally:
        torch.set_default_dtype(before)
    return model.eval().requires_grad_(False)
