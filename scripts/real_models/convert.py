"""Conversion of a GGUF file to a transformers model with the same weights in bfloat16."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer


def convert(gguf: Path) -> None:
    """Write config.json, weights and tokenizer next to the file; config.json last of all."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    folder = gguf.parent
    with tempfile.TemporaryDirectory(dir=folder, prefix=".converting-") as work:
        model = AutoModelForCausalLM.from_pretrained(
            folder, gguf_file=gguf.name, dtype=torch.bfloat16
        )
        _as_never_quantised(model)
        model.save_pretrained(work)
        AutoTokenizer.from_pretrained(folder, gguf_file=gguf.name).save_pretrained(work)
        made = sorted(Path(work).iterdir(), key=lambda file: file.name == "config.json")
        for file in made:
            file.replace(folder / file.name)


def _as_never_quantised(model: transformers.PreTrainedModel) -> None:
    """Remove the record of the quantized source: with it, transformers refuses a plain save."""
    for place, name in ((model, "hf_quantizer"), (model.config, "quantization_config")):
        if hasattr(place, name):
            delattr(place, name)
    model.is_quantized = False
