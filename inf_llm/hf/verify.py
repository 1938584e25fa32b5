"""The short check that a patched model still computes what it did: no family is trusted by name."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache

from inf_llm.errors import InfLLMError, UnsupportedModelError
from inf_llm.hf.cache import MakeAttention, adopt

_TOKENS = 12
_FIRST_FEED = 8


def short_text_logits(model: PreTrainedModel) -> Tensor:
    """Logits of the model as it is for a dozen tokens fed at once."""
    return _run(model, lambda ids: model(input_ids=ids, use_cache=False)[0])


def verify(model: PreTrainedModel, makers: dict[int, MakeAttention], wanted: Tensor) -> None:
    """Feed the same tokens in two parts through memories made by `makers`, and compare.

    Every attention type is full attention while the text fits its window, so with a window that
    holds the text nothing may change.

    Raises:
        UnsupportedModelError: the logits differ, or the model fails on the way.
    """
    name = type(model).__name__

    def in_two_parts(ids: Tensor) -> Tensor:
        cache = adopt(DynamicCache(config=model.config.get_text_config(decoder=True)), makers)
        parts = ids.split([_FIRST_FEED, _TOKENS - _FIRST_FEED], 1)
        outputs = [model(input_ids=part, past_key_values=cache)[0] for part in parts]
        per_token = all(
            out.shape[1] == part.shape[1] for out, part in zip(outputs, parts, strict=True)
        )
        return torch.cat(outputs, 1) if per_token else outputs[-1]  # a classifier's says it all

    try:
        got = _run(model, in_two_parts)
    except InfLLMError as error:
        raise UnsupportedModelError(f"{name} cannot be patched: {error}") from error
    except Exception as error:
        raise UnsupportedModelError(
            f"{name} fails with a memory in place of its cache: {error}"
        ) from error
    exact = next(model.parameters()).dtype in (torch.float32, torch.float64)
    limit = (1e-3 if exact else 5e-2) * max(1.0, float(wanted.abs().max()))
    difference = float((got - wanted).abs().max())
    if not difference <= limit:
        raise UnsupportedModelError(
            f"{name} cannot be patched: the logits of a short text change by {difference:.2g}, so "
            "its attention does something that is not reproduced"
        )


@torch.no_grad()
def _run(model: PreTrainedModel, run: Callable[[Tensor], Tensor]) -> Tensor:
    device = next(model.get_input_embeddings().parameters()).device
    vocabulary = model.config.get_text_config().vocab_size
    ids = torch.arange(3, 3 + _TOKENS, device=device) % vocabulary
    return run(ids[None]).float()
