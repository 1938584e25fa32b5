"""Checks of a loaded model before use: it runs, and has an embedding for every token."""

from __future__ import annotations

from typing import Any

import torch
from transformers import PreTrainedModel

from inf_llm.config import RunConfig
from inf_llm.conversation import TEMPLATES
from inf_llm.errors import ConfigError, reason
from inf_llm.hf.decoder import device_of


@torch.no_grad()
def try_out(model: PreTrainedModel, where: str) -> None:
    """Check that a model is a decoder, runs, and gives finite numbers.

    Raises:
        ConfigError: a check failed; the message gives the possible cause.
    """
    causal = [module.is_causal for module in model.modules() if hasattr(module, "is_causal")]
    if causal and not any(causal):
        raise ConfigError(
            f"{where}: in {type(model).__name__} every token sees all others, as in encoders, so "
            "it cannot generate text; give a decoder"
        )
    try:
        logits = model(torch.tensor([[0, 1]], device=device_of(model)), use_cache=False).logits
    except Exception as error:
        raise ConfigError(
            f"{where}: the model cannot run ({type(error).__name__}: {reason(error)})"
        ) from error
    if not torch.isfinite(logits).all():
        raise ConfigError(
            f"{where}: the model gives no finite numbers in {logits.dtype}: its weights are "
            "damaged, or model.dtype=float32 is needed"
        )


def check_vocabulary(model: PreTrainedModel, tokenizer: Any, config: RunConfig) -> None:
    """Check that the model has an embedding for every token that a prompt can have.

    Tokens that a text cannot have by itself are ignored: padding, and special ones that no template
    writes (Gemma 3's tokenizer has one for images that its text models lack).

    Raises:
        ConfigError: the tokenizer is of a larger model.
    """
    embeddings: Any = model.get_input_embeddings()
    rows = embeddings.weight.shape[0]
    vocabulary = tokenizer.get_vocab()
    known = tokenizer.added_tokens_decoder
    template = TEMPLATES.get(config.conv_type or "", str(getattr(tokenizer, "chat_template", "")))
    written = {tokenizer.bos_token, tokenizer.eos_token}
    for token, index in sorted(vocabulary.items(), key=lambda item: item[1]):
        special = index in known and known[index].special
        if index >= rows and (not special or token in written or token in template):
            raise ConfigError(
                f"{'model.tokenizer_path' if config.model.tokenizer_path else 'model.path'}: the "
                f"tokenizer has {len(vocabulary):,} tokens (such as {token!r}, number {index:,}), "
                f"but the model has embeddings for {rows:,}: name the model's own tokenizer with "
                "model.tokenizer_path"
            )
