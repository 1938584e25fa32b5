"""The Llama to train, and first weights that let it look things up soon."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

ROPE_BASE = 10_000.0


@dataclass(frozen=True)
class Shape:
    """Sizes of the network."""

    vocab: int = 1024
    width: int = 256
    layers: int = 4
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 64
    mlp: int = 640
    context: int = 512

    def config(self) -> LlamaConfig:
        """The same as transformers writes it."""
        return LlamaConfig(
            vocab_size=self.vocab,
            hidden_size=self.width,
            intermediate_size=self.mlp,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.kv_heads,
            head_dim=self.head_dim,
            max_position_embeddings=self.context,
            rope_parameters={"rope_type": "default", "rope_theta": ROPE_BASE},
            tie_word_embeddings=True,
            attention_bias=True,
            bos_token_id=0,
            eos_token_id=1,
            pad_token_id=2,
        )


def build(shape: Shape, seed: int) -> LlamaForCausalLM:
    """A fresh model whose first layer already looks at the tokens just before."""
    torch.manual_seed(seed)
    model = LlamaForCausalLM(shape.config())
    look_back(model, {head: head + 1 for head in range(min(3, shape.heads))})
    return model


def frequencies(head_dim: int, base: float = ROPE_BASE) -> Tensor:
    """Radians per position of every rotated pair (head_dim / 2,)."""
    return base ** (-torch.arange(head_dim // 2).double() / (head_dim // 2))


def grow(model: LlamaForCausalLM, seed: int) -> LlamaForCausalLM:
    """The same model with one more layer behind the first, which attends farther back.

    Of its heads one looks three tokens back and one six; what the first layer has given those
    tokens about their own neighbours makes it a reach of nine. Three tokens do not separate the
    values of many similar keys, nor the digits of a number with runs. A model with both layers from
    its start learns to look things up late or never, so the second comes when the first is in use.
    At first it writes what it sees at random, loud enough for the other layers to learn to read;
    written at zero it stays unread for long.
    """
    torch.manual_seed(seed)
    config = copy.deepcopy(model.config)
    config.num_hidden_layers += 1
    config.layer_types = None
    grown = LlamaForCausalLM(LlamaConfig(**config.to_dict()))
    state = model.state_dict()
    for name in list(state):
        prefix, _, rest = name.partition("layers.")
        index, _, part = rest.partition(".")
        if rest and int(index) > 0:
            state[f"{prefix}layers.{int(index) + 1}.{part}.moved"] = state.pop(name)
    state = {name.removesuffix(".moved"): value for name, value in state.items()}
    grown.load_state_dict(state, strict=False)
    layer = grown.model.layers[1]
    reach, size = {0: 3, 1: 6}, int(config.head_dim)
    with torch.no_grad():
        layer.self_attn.v_proj.weight[:size].normal_(std=1 / 16)
        layer.self_attn.o_proj.weight.zero_()
        layer.self_attn.o_proj.weight[:, : len(reach) * size].normal_(std=1 / 16)
        layer.mlp.down_proj.weight.zero_()
    look_back(grown, reach, layer=1, strength=10.0)
    return grown


def look_back(
    model: LlamaForCausalLM, steps: dict[int, int], layer: int = 0, strength: float = 6.0
) -> None:
    """Make heads of a layer attend a fixed number of tokens back, through biases alone.

    Looking something up by what precedes it takes two layers, of which the first must give every
    token what stood before it. Nothing rewards either half without the other, so plain training
    finds them late or never; with the first half given, the second appears within minutes.

    Every key gets the same bias, and a head's query bias is that vector turned by so many
    positions; the rotary positions then make the match best exactly that far back. Only the
    fastest-turning pairs carry it, for they separate neighbours.

    Args:
        model: changed in place.
        steps: how far back which query heads look.
        layer: which layer they are in.
        strength: size of the biases; the attention starts nearly one-hot at 6.
    """
    config: Any = model.config
    attention = model.model.layers[layer].self_attn
    size, half = config.head_dim, config.head_dim // 2
    group = config.num_attention_heads // config.num_key_value_heads
    on = (torch.arange(half) < half // 3).float() * strength
    turn = -frequencies(size).float()
    with torch.no_grad():
        for head, back in steps.items():
            key = attention.k_proj.bias.view(-1, 2, half)[head // group]
            key[0], key[1] = on, 0.0
            query = attention.q_proj.bias.view(-1, 2, half)[head]
            query[0], query[1] = on * torch.cos(turn * back), on * torch.sin(turn * back)
