"""Which model is timed, with which settings and at which lengths."""

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
    """One set of sizes.

    Attributes:
        model: arguments of `LlamaConfig`; weights are random, which does not change what is
            computed, only which blocks are recalled: nearly other ones with every token, the
            worst case for loading.
        memory: settings of inf-llm.
        device: where the model is.
        dtype: of weights, keys and values.
        lengths: where decoding is measured.
        chunk: tokens of the prompt fed at a time.
        types: what is compared by default.
        origin_prefill: up to where full attention reads the prompt.
        origin_decode: up to where it decodes, with a cache filled with random numbers.
        slow_limit: up to where the reference kernel is measured.
        target: name of the set of ratios that the figures are held against (`ratios`).
        source: the configuration whose model is timed in the place of one with random weights.
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
        """stream-lm that sees as many tokens as the memory shows a query."""
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
    """A preset by name.

    Raises:
        InfLLMError: there is none of this name, or its device is not here.
    """
    if name not in PRESETS:
        raise InfLLMError(f"--preset {name!r} is not known; {accepted(name, PRESETS)}")
    chosen = PRESETS[name]
    if chosen.device == "cuda" and not torch.cuda.is_available():
        raise InfLLMError(f"--preset {name} needs a CUDA device and there is none: use cpu")
    return chosen


def preset_of(config: RunConfig) -> Preset:
    """The model, the attention settings and the chunk length of a configuration.

    Raises:
        InfLLMError: its type is not inf-llm.
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
    """The model on its device: that of the configuration, or one with random weights."""
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
