"""The Llama to train, and initial weights with which it soon learns to look things up."""

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
        """Return the sizes as a configuration of transformers."""
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
    """Make an untrained model whose first layer already attends to the tokens just before."""
    torch.manual_seed(seed)
    model = LlamaForCausalLM(shape.config())
    look_back(model, {head: head + 1 for head in range(min(3, shape.heads))})
    return model


def frequencies(head_dim: int, base: float = ROPE_BASE) -> Tensor:
    """Return the radians per position of every rotated pair (head_dim / 2,)."""
    return base ** (-torch.arange(head_dim // 2).double() / (head_dim // 2))


def grow(model: LlamaForCausalLM, seed: int) -> LlamaForCausalLM:
    """Return the model with one more layer after the first, which attends farther back.

    One of its heads attends three tokens back, and one six. The first layer has added to those
    tokens information on the three tokens before them, so the reach is nine tokens. A reach of
    three does not separate the values of many similar keys, nor the digits of a number with runs.
    A model with both layers from the start learns to look things up late or never, so the second
    layer is added once the first is in use. Its output weights are random at first, and large
    enough for the other layers to learn to use the output; from zero weights this takes long.
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

    To look up a value by the tokens before it takes two layers; the first must add to every token
    information on the token before it. Neither half reduces the loss without the other, so plain
    training finds them late or never; with the first half given, the second appears within minutes.

    Every key gets the same bias, and the query bias of a head is that vector, rotated by the number
    of positions to attend back; with rotary positions the match is then best exactly that far back.
    Only the pairs that rotate fastest have a bias, because they separate neighbours.

    Args:
        model: the model, changed in place.
        steps: number of tokens to attend back, by query head.
        layer: index of the layer of these heads.
        strength: size of the biases; at 6 the attention starts nearly one-hot.
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
