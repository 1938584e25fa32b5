"""Make a tiny Llama with random weights and a tokenizer of bytes, to try the code with.

    python scripts/make_tiny_checkpoint.py FOLDER

Its output has no meaning. Its attention is sharpened, though: with weights as they are initialised,
every token would attend to all others about equally, and a wrong window would go unnoticed.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

TRAINED_LENGTH = 512
SHARPENING = 6.0


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Make a tokenizer with one token per byte, and two special tokens."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate(["<s>", "</s>", *letters])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")


def make_model(vocab_size: int, seed: int = 0) -> LlamaForCausalLM:
    """Make a model of two layers with four heads, about 100 thousand parameters."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=TRAINED_LENGTH,
        initializer_range=0.1,
        bos_token_id=0,
        eos_token_id=1,
    )
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.q_proj.weight *= SHARPENING
            layer.self_attn.k_proj.weight *= SHARPENING
    return model


def main(folder: Path) -> None:
    """Write model and tokenizer to the folder."""
    tokenizer = make_tokenizer()
    make_model(len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
