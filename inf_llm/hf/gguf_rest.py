"""Complete a model or a tokenizer with fields of a GGUF file that transformers ignores."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
import transformers

from inf_llm.errors import UnsupportedModelError
from inf_llm.hf.gguf import Head, read_head

_SPECIAL = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
_LLAMA_3 = ("llama3", "llama-v3", "llama-bpe")
"""Vocabularies for which llama.cpp starts a text with BOS, unless the file says otherwise."""

_SPACES = ("Ġ", "▁")
_SAMPLE = 200
"""Number of words that a tokenizer is checked with."""

_FACTORS = "rope_freqs.weight"
_FULL = re.compile(r"(.*\.)?(full_attention_|original_)*inv_freq")
"""Names of the rotary frequencies that a scaling applies to; not those of sliding window layers."""


def complete_tokenizer(tokenizer: Any, file: Path) -> None:
    """Set the special tokens and the chat template, which transformers does not read from the file.

    Raises:
        ValueError: the tokenizer has lost its merges, as in some releases of transformers for
            vocabularies of sentencepiece.
    """
    values = read_head(file).values
    vocabulary = tokenizer.get_vocab()
    names = {index: token for token, index in vocabulary.items()}
    for ours, theirs in _SPECIAL.items():
        setattr(
            tokenizer, f"{ours}_token", names.get(values.get(f"tokenizer.ggml.{theirs}_token_id"))
        )
    if values.get("tokenizer.ggml.pre") in _LLAMA_3:
        tokenizer.add_bos_token = values.get("tokenizer.ggml.add_bos_token", True)
    tokenizer.chat_template = values.get("tokenizer.chat_template")
    words = [t for t in vocabulary if t[:1] in _SPACES and t[1:].isascii() and t[1:].isalpha()]
    sample = words[:: max(1, len(words) // _SAMPLE)]
    read = [tokenizer(f" {t[1:]}", add_special_tokens=False)["input_ids"][-1] for t in sample]
    whole = sum(index == vocabulary[t] for index, t in zip(read, sample, strict=True))
    if 2 * whole < len(sample):
        raise ValueError(
            f"of {len(sample)} words of its vocabulary, the tokenizer finds {whole} again: "
            "transformers misreads it, a newer release may not"
        )


def as_numbers() -> dict[str, Any]:
    """Return keywords for `from_pretrained` that dequantize the weights in every release."""
    made = getattr(transformers, "GgufConfig", None)
    return {} if made is None else {"quantization_config": made(dequantize=True)}


def complete_model(model: Any, file: Path) -> None:
    """Set what transformers does not read from the file, and remove the mark of quantization.

    The generation config gets the tokens that begin, pad and end a text. The rotary frequencies are
    divided by `rope_freqs.weight` per pair (Llama 3.1 and later), or by `rope.scaling.factor` for
    all pairs (Gemma 3 from 4B on, in the layers with full attention).

    Raises:
        UnsupportedModelError: the model has no such frequencies.
    """
    if getattr(model, "hf_quantizer", None) is not None:  # it forbids casting and saving
        model.hf_quantizer.remove_quantization_config(model)
    head, settings = read_head(file), model.generation_config
    ends, bos, pad = (
        [head.values.get(f"tokenizer.ggml.{key}_token_id") for key in keys]
        for keys in (("eos", "eot", "eom"), ("bos",), ("padding",))
    )
    settings.eos_token_id = [index for index in ends if index is not None] or None
    settings.bos_token_id, settings.pad_token_id = *bos, *pad
    divisor = _divisor(head, file)
    if divisor is None or _scaled(model.config.rope_parameters):
        return
    buffers = [buffer for name, buffer in model.named_buffers() if _FULL.fullmatch(name)]
    if not buffers or any(divisor.numel() not in (1, buffer.numel()) for buffer in buffers):
        raise UnsupportedModelError(
            f"{type(model).__name__} has no rotary frequencies of the form that {file.name} scales"
        )
    for buffer in buffers:
        buffer.div_(divisor.to(buffer))


def _scaled(rope: dict[str, Any]) -> bool:
    """Return whether transformers itself scales the model's rotary frequencies."""
    kinds = [rope] if "rope_type" in rope else [kind for kind in rope.values() if kind]
    return any(kind["rope_type"] != "default" for kind in kinds)


def _divisor(head: Head, file: Path) -> torch.Tensor | None:
    if _FACTORS in head.tensors:
        place = head.tensors[_FACTORS]
        with file.open("rb") as opened:
            opened.seek(place.start)
            return torch.frombuffer(
                bytearray(opened.read(place.end - place.start)), dtype=torch.float32
            )
    if head.own("rope.scaling.type") == "linear":
        return torch.tensor(float(head.own("rope.scaling.factor", 1.0)))
    return None
