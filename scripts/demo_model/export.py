"""Export of the finished model to a folder that transformers loads."""

from __future__ import annotations

import json
import lzma
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from transformers import GenerationConfig, LlamaForCausalLM

from demo_model.text import END, as_transformers


def export(
    model: LlamaForCausalLM, tokenizer: Tokenizer, folder: Path, log: dict[str, Any]
) -> None:
    """Write the weights in bfloat16, the configs, the tokenizer and the training log."""
    folder.mkdir(parents=True, exist_ok=True)
    config = model.config
    model.generation_config = GenerationConfig(
        bos_token_id=config.bos_token_id,
        eos_token_id=[config.eos_token_id, tokenizer.token_to_id(END)],
        pad_token_id=config.pad_token_id,
        do_sample=False,
    )
    slim: Any = type(model)(config)
    slim.load_state_dict(model.state_dict())
    slim.generation_config = model.generation_config
    slim.to(torch.bfloat16).save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)
    _write_tokenizer(tokenizer, folder)
    (folder / "training_log.json").write_text(json.dumps(log, indent=1) + "\n")


def _write_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Write the tokenizer's files, with the class name that every version of transformers has."""
    as_transformers(tokenizer).save_pretrained(folder)
    file = folder / "tokenizer_config.json"
    settings = json.loads(file.read_text(encoding="utf-8"))
    settings.pop("backend", None)
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    file.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def write_haystack(text: str, folder: Path) -> None:
    """Write the prose that ships with the model, compressed."""
    (folder / "haystack.txt.xz").write_bytes(lzma.compress(text.encode(), preset=9))
