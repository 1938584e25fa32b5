"""Checks of the values of `generate` options before generation.

transformers accepts many invalid values: a token id outside the vocabulary has no effect or fails
at the last step, and a negative count has no effect.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from inf_llm.checks import count, number, require, require_type

SHARES = ("top_p", "min_p", "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff")
_LARGE = 1e6  # the limit of numbers without a natural upper limit
_MOST = {
    **dict.fromkeys(SHARES, 1.0),
    **dict.fromkeys(("temperature", "guidance_scale", "max_time"), _LARGE),
    **dict.fromkeys(("repetition_penalty", "encoder_repetition_penalty"), _LARGE),
}
_COUNTS = ("no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "min_new_tokens", "min_length")
_FLAGS = ("do_sample", "renormalize_logits", "remove_invalid_values", "disable_compile")
_TOKENS = frozenset(
    {
        *("eos_token_id", "pad_token_id", "bos_token_id", "decoder_start_token_id"),
        *("forced_eos_token_id", "suppress_tokens", "begin_suppress_tokens", "bad_words_ids"),
        *("sequence_bias", "negative_prompt_ids"),
    }
)


def in_range(name: str, value: Any, known: int) -> Any:
    """Check the value of an option and return it, a number as a plain int or float.

    Args:
        name: name of the option.
        value: value of the option; None leaves the option unset.
        known: vocabulary size; token ids from 0 to `known` - 1 exist.

    Raises:
        SettingsError: the value is not accepted; the message lists the accepted values.
    """
    if value is None:
        return None
    if name in _MOST:
        return number(name, value, 0, _MOST[name])
    if name in (*_COUNTS, "top_k"):
        return count(name, value, 0)
    if name in _FLAGS:
        require_type(name, value, bool)
    if name in _TOKENS:
        for token in _tokens(name, value):
            fits = isinstance(token, int) and not isinstance(token, bool) and 0 <= token < known
            message = f"{name} has {token!r:.40}: token ids from 0 to {known - 1} are accepted"
            require(fits, name, message)
    if isinstance(value, float):
        require_type(name, value, float)
    return value


def fit_together(requested: Mapping[str, Any], longest: int) -> None:
    """Check that no option cancels the effect of another.

    Raises:
        SettingsError: two options conflict, and the message names both; or a negative prompt has a
            wrong shape.
    """
    least, guided = (
        requested.get("min_new_tokens"),
        requested.get("guidance_scale") not in (None, 1),
    )
    message = f"min_new_tokens = {least} is more than max_new_tokens = {longest}: lower it"
    require(least is None or least <= longest, "min_new_tokens", message)
    negative, mask = (
        requested.get(f"negative_prompt_{part}") for part in ("ids", "attention_mask")
    )
    message = "negative_prompt_ids act beside a guidance_scale only: give one other than 1 too"
    require(negative is None or guided, "negative_prompt_ids", message)
    fits = negative is None or (
        torch.is_tensor(negative) and len(negative) == negative.ndim - 1 == 1
    )
    message = "negative_prompt_ids must be the token ids of one text, as a tensor of shape (1, n)"
    require(fits, "negative_prompt_ids", message)
    fits = mask is None or (negative is not None and getattr(mask, "shape", None) == negative.shape)
    message = "negative_prompt_attention_mask must have the shape of negative_prompt_ids"
    require(fits, "negative_prompt_attention_mask", message)


def _tokens(name: str, value: Any) -> Iterator[Any]:
    """Yield the token ids in a value: one id, a list of ids, or a list of lists of ids."""
    if isinstance(value, Mapping):
        value = list(value)
    elif name == "sequence_bias" and isinstance(value, list):  # pairs of token ids and a bias
        value = [row[0] if isinstance(row, list | tuple) and row else row for row in value]
    value = value.tolist() if hasattr(value, "tolist") else value
    for item in value if isinstance(value, list | tuple | set) else [value]:
        if isinstance(item, list | tuple):
            yield from _tokens("", item)
        else:
            yield item
