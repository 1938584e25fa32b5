"""Tiny Llamas as GGUF files, written as llama.cpp's converter writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from inf_llm.config import ModelConfig, RunConfig
from inf_llm.settings import make_settings
from tests.tiny import SETTINGS, tiny_model, tiny_tokenizer

TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CONTROL = ("<s>", "</s>", "<|im_start|>", "<|im_end|>")
_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "model.layers": "blk",
}


def chat_model() -> Any:
    """The tiny Llama with embeddings for the tokens of ChatML too."""
    model = tiny_model()
    model.resize_token_embeddings(len(_tokens()))
    return model


def write_gguf(file: Path, model: Any, tensors: Any = None, **values: Any) -> Path:
    """Write a model with the tokenizer of bytes.

    Args:
        file: to write.
        model: a Llama with as many tokens as `chat_model`.
        tensors: more of them, by name.
        values: metadata to add or replace, with `__` for a dot; None leaves a key out.
    """
    gguf = pytest.importorskip("gguf", reason="gguf is absent: pip install 'inf-llm[gguf]'")
    config, tokens = model.config, _tokens()
    found = {
        "llama.context_length": config.max_position_embeddings,
        "llama.block_count": config.num_hidden_layers,
        "llama.embedding_length": config.hidden_size,
        "llama.feed_forward_length": config.intermediate_size,
        "llama.attention.head_count": config.num_attention_heads,
        "llama.attention.head_count_kv": config.num_key_value_heads,
        "llama.attention.layer_norm_rms_epsilon": config.rms_norm_eps,
        "llama.rope.freq_base": config.rope_parameters["rope_theta"],
        "llama.rope.dimension_count": config.hidden_size // config.num_attention_heads,
        "llama.vocab_size": len(tokens),
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3 if token in CONTROL else 1 for token in tokens],
        "tokenizer.ggml.merges": ["Ġ t", "t h"],
        "tokenizer.ggml.bos_token_id": tokens.index("<s>"),
        "tokenizer.ggml.eos_token_id": tokens.index("<|im_end|>"),
        "tokenizer.ggml.padding_token_id": tokens.index("</s>"),
        "tokenizer.chat_template": TEMPLATE,
    } | {key.replace("__", "."): value for key, value in values.items()}
    writer = gguf.GGUFWriter(file, found.pop("general.architecture", "llama"))
    for key, value in found.items():
        _add(writer, key, value)
    for name, weight in model.state_dict().items():
        writer.add_tensor(*_tensor(config, name, weight))
    for name, weight in (tensors or {}).items():
        writer.add_tensor(name, weight.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def _tokens() -> list[str]:
    vocabulary = tiny_tokenizer().get_vocab()
    return [*sorted(vocabulary, key=vocabulary.__getitem__), *CONTROL[2:], "Ġt", "th"]


def _add(writer: Any, key: str, value: Any) -> None:
    kinds = {str: writer.add_string, float: writer.add_float32, int: writer.add_uint32}
    if value is not None:
        (writer.add_array if isinstance(value, list) else kinds[type(value)])(key, value)


def _tensor(config: Any, name: str, weight: Tensor) -> tuple[str, Any]:
    """llama.cpp's name; queries and keys in its order, in which pairs stand side by side."""
    heads = {"q": config.num_attention_heads, "k": config.num_key_value_heads}
    for kind, count in heads.items():
        if f"{kind}_proj" in name:
            halves = weight.reshape(count, 2, -1, weight.shape[1])
            weight = halves.transpose(1, 2).reshape(weight.shape)
    for ours, theirs in _NAMES.items():
        name = name.replace(ours, theirs)
    return name, weight.detach().float().contiguous().numpy()


def named(path: str | Path, **more: Any) -> RunConfig:
    settings = make_settings("inf-llm", **SETTINGS)
    return RunConfig(ModelConfig(str(path), **more), settings)


@torch.no_grad()
def same(found: Any, wanted: Any, length: int = 600) -> float:
    """The largest difference between the logits of two models."""
    ids = torch.randint(2, 256, (1, length), generator=torch.Generator().manual_seed(0))
    return float((found(ids).logits - wanted(ids).logits).abs().max())
