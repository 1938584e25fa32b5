"""Run a model's own text layers with an attention function that records.

Two names are registered with transformers. Attention under the first gets no masks. Attention under
the second gets the masks that the model makes for plain softmax attention. Both call the recorder
that is stored on the attention module during the run.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

from inf_llm.errors import UnsupportedModelError
from inf_llm.hf.decoder import device_of

_PLAIN, _MASKED = "inf_llm_probe", "inf_llm_verify"
_RECORDER = "_inf_llm_recorder"


class Recorder(Protocol):
    """An attention function of transformers: q, k, v (B, H, L, D) to an output (B, L, H, Dv)."""

    def __call__(
        self,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Any = None,
        **kwargs: Any,
    ) -> tuple[Tensor, None]: ...


def _attention(module: nn.Module, *args: Any, **kwargs: Any) -> tuple[Tensor, None]:
    recorder: Recorder = module.__dict__[_RECORDER]
    return recorder(module, *args, **kwargs)


for _name in (_PLAIN, _MASKED):
    AttentionInterface.register(_name, _attention)
AttentionMaskInterface.register(_PLAIN, lambda *args, **kwargs: None)
AttentionMaskInterface.register(_MASKED, eager_mask)


@contextlib.contextmanager
def recorded(decoder: Any, recorder: Recorder, masks: bool) -> Iterator[None]:
    """Compute a decoder's attention with `recorder`, with the model's own masks or without.

    The model runs in evaluation mode, without `torch.autocast`.

    Raises:
        UnsupportedModelError: the decoder does not use transformers' attention interface.
    """
    before, name = decoder.config._attn_implementation, _MASKED if masks else _PLAIN
    on = device_of(decoder).type
    kind = "cpu" if on == "meta" else on  # torch has no autocast for the meta device
    trained = [module for module in decoder.modules() if module.training]
    for module in decoder.modules():
        module.__dict__[_RECORDER] = recorder
    try:
        decoder.eval()
        decoder.set_attn_implementation(name)
        if decoder.config._attn_implementation != name:
            raise UnsupportedModelError(
                "it computes attention by itself instead of through transformers' "
                "AttentionInterface, so that cannot be replaced"
            )
        with torch.autocast(kind, enabled=False):
            yield
    finally:
        for module in decoder.modules():
            module.__dict__.pop(_RECORDER, None)
        for module in trained:
            module.training = True
        decoder.set_attn_implementation(before)


def token_ids(decoder: Any, count: int) -> Tensor:
    """Return ids of ordinary words (1, count), spread over the middle of the vocabulary.

    Raises:
        UnsupportedModelError: the model has no weights yet.
    """
    device = device_of(decoder)
    if device.type == "meta":
        raise UnsupportedModelError("its weights are on the meta device: load them first")
    vocabulary = decoder.config.get_text_config().vocab_size
    first, span = vocabulary // 8, max(1, vocabulary // 2)
    ids = [(first + 7919 * step % span) % vocabulary for step in range(1, count + 1)]
    return torch.tensor([ids], device=device)
