"""Keywords of `generate` that a caller may set, and those that a session fixes.

A checkpoint has its own settings (generation_config.json, or config.json in older checkpoints), and
`generate` applies those that its caller does not set. Beams, other caches or an early end do not
suit a session, and with a penalty a greedy answer does not have the likeliest tokens. A session
therefore sets every field of the installed transformers' `GenerationConfig`, except for the few
fields below.

All keywords are checked before any token is read, by the rules here and then by `generate` itself.
"""

from __future__ import annotations

import functools
import inspect
import math
from typing import Any

import torch
from transformers import GenerationConfig

from inf_llm.checks import (
    MIN_TEMPERATURE,
    count,
    require,
    require_callable,
)
from inf_llm.errors import SettingsError, reason
from inf_llm.generation.ranges import SHARES, fit_together, in_range
from inf_llm.generation.tokens import vocabulary
from inf_llm.hf.decoder import device_of
from inf_llm.registry import nearest

OWN: dict[str, Any] = {
    "use_cache": True,
    "num_beams": 1,
    "num_return_sequences": 1,
    **dict.fromkeys(("is_assistant", "return_dict_in_generate", "token_healing"), False),
    **dict.fromkeys(("output_attentions", "output_hidden_states"), False),
    **dict.fromkeys(("output_scores", "output_logits"), False),
    **dict.fromkeys(("cache_implementation", "cache_config", "max_cache_len")),
    **dict.fromkeys(("max_length", "prefill_chunk_size", "stop_strings")),
    **dict.fromkeys(("inputs", "input_ids", "inputs_embeds", "attention_mask", "position_ids")),
    **dict.fromkeys(("past_key_values", "cache", "tokenizer", "custom_generate")),
    # speculative decoding: transformers feeds the whole prompt again, whatever the memory holds
    **dict.fromkeys(("assistant_model", "prompt_lookup_num_tokens", "use_mtp")),
    **dict.fromkeys(("assistant_early_exit", "assistant_ensemble_weight", "speculation_type")),
    # decoding methods that are no longer part of transformers
    **dict.fromkeys(("constraints", "force_words_ids", "penalty_alpha", "dola_layers")),
    **dict.fromkeys(("num_beam_groups", "diversity_penalty", "low_memory")),
    **dict.fromkeys(("continuous_batching_config", "compile_config")),
    # details of beam search, speculative decoding and encoders
    "length_penalty": 1.0,
    "early_stopping": False,
    "forced_bos_token_id": None,
    **dict.fromkeys(("num_assistant_tokens", "num_assistant_tokens_schedule")),
    **dict.fromkeys(("assistant_confidence_threshold", "max_matching_ngram_size")),
    **dict.fromkeys(("assistant_lookbehind", "target_lookbehind")),
}
"""Fixed values of a session, which has one text, one answer and its own memory. Neither a
checkpoint nor a caller may change them."""

FROM_CHECKPOINT = frozenset({"bos_token_id", "eos_token_id", "decoder_start_token_id"})
"""Fields that the checkpoint sets unless the caller does: the tokens that begin and end a text."""

_WARPERS = frozenset({"temperature", "top_k", *SHARES})
"""Options that change the probabilities of sampling, but not which token is the likeliest."""

FOR_SAMPLING = _WARPERS | {"repetition_penalty"}
"""Fields that, in sampling, the checkpoint sets unless the caller does."""

_FUNCTIONS = ("logits_processor", "stopping_criteria", "prefix_allowed_tokens_fn")
_OBJECTS = {*_FUNCTIONS, "synced_gpus", "negative_prompt_ids", "negative_prompt_attention_mask"}
"""Arguments of `generate` that a caller may pass and that `GenerationConfig` does not have."""
_OF_ASK = ("max_new_tokens", "stop", "streamer", "on_progress", "should_stop")
"""Arguments of `Session.ask` itself."""

_INSTEAD = {
    **dict.fromkeys(
        ("assistant_model", "prompt_lookup_num_tokens", "assistant_early_exit"),
        "; guessing ahead works in model.generate, from an empty memory",
    ),
    "max_length": "; max_new_tokens is the length of the answer",
    "stop_strings": "; stop takes texts that end the answer",
    "prefill_chunk_size": "; the session itself has a chunk_size",
}


@functools.cache
def fields() -> frozenset[str]:
    """Return the fields of `GenerationConfig` in the installed transformers."""
    names = {name for name in vars(GenerationConfig()) if not name.startswith("_")}
    return frozenset(names - {"transformers_version"})


def own_options(tokenizer: Any, max_new_tokens: int, samples: bool = False) -> dict[str, Any]:
    """Return keywords for `generate` that override the settings of a checkpoint.

    The checkpoint sets only `FROM_CHECKPOINT` and, if `samples` is true, `FOR_SAMPLING`.
    """
    left = FROM_CHECKPOINT | (FOR_SAMPLING if samples else frozenset())
    pad = tokenizer.pad_token_id
    return {name: OWN.get(name) for name in fields() - left} | {
        "do_sample": samples,
        "max_new_tokens": max_new_tokens,
        "pad_token_id": tokenizer.eos_token_id if pad is None else pad,
    }


def answer_options(
    model: Any,
    tokenizer: Any,
    max_new_tokens: int | None,
    requested: dict[str, Any],
    default: int = 128,
) -> dict[str, Any]:
    """Check the keywords of a caller; return all keywords of `generate` for one answer.

    Args:
        model: a model as for `Session`.
        tokenizer: the tokenizer of the model.
        max_new_tokens: longest answer; None for that of a `generation_config`, or the default.
        requested: other keywords of the caller, by their names in `generate`.
        default: longest answer if neither the caller nor a `generation_config` sets it.

    Raises:
        SettingsError: a keyword is unknown, does not suit a session, or is refused by `generate`.
            No token was read or fed.
    """
    keywords = _flat(
        requested if max_new_tokens is None else requested | {"max_new_tokens": max_new_tokens}
    )
    longest = count("max_new_tokens", keywords.pop("max_new_tokens", default))
    requested = _checked(_named(keywords), vocabulary(model))
    fit_together(requested, longest)
    samples = _samples(requested)
    if not samples:
        requested = {name: value for name, value in requested.items() if name not in _WARPERS}
    options = own_options(tokenizer, longest, samples) | requested | {"do_sample": samples}
    if requested.keys() - set(_FUNCTIONS):
        _rehearse(model, options, requested)
    return options


def _flat(requested: dict[str, Any]) -> dict[str, Any]:
    """Replace a `generation_config` by its fields; other keywords override the fields."""
    config = requested.get("generation_config")
    if config is None:
        return {name: value for name, value in requested.items() if name != "generation_config"}
    fits = isinstance(config, GenerationConfig)
    message = f"generation_config is a {type(config).__name__}: a GenerationConfig is accepted"
    require(fits, "generation_config", message)
    values = {name: getattr(config, name, None) for name in fields()}
    values = {name: value for name, value in values.items() if value is not None}
    return _flat(values | requested | {"generation_config": None})


def _named(requested: dict[str, Any]) -> dict[str, Any]:
    """Return the keywords without those in `OWN`, after a check of names and fixed values."""
    known = (fields() | _OBJECTS) - OWN.keys()
    for name, value in requested.items():
        if name in OWN and value is not None and not _same(value, OWN[name]):
            raise SettingsError(
                f"{name} = {_shown(value)} does not suit a session, which has one text, one answer "
                f"and its own memory: leave it out{_INSTEAD.get(name, '')}",
                name,
            )
        if name not in OWN and name not in known:
            raise SettingsError(
                f"{name} is not an argument here; {nearest(name, sorted({*known, *_OF_ASK}))}"
                f"accepted are {', '.join(_OF_ASK)} and what GenerationConfig has",
                name,
            )
    return {name: value for name, value in requested.items() if name not in OWN}


def _shown(value: Any) -> str:
    """Return a value for an error message: the first line of its `repr`, at most 60 characters."""
    text = (repr(value).splitlines() or [""])[0]
    return text if len(text) <= 60 else text[:57] + "..."


def _same(value: Any, own: Any) -> bool:
    return isinstance(value, bool | int | float) and value == own


def _checked(requested: dict[str, Any], known: int) -> dict[str, Any]:
    """Check values that `generate` would ignore or fail on; return the normalised values.

    Numbers become int or float; logits processors and stopping criteria become lists.
    """
    checked = dict(requested)
    for name, value in requested.items():
        if name in _FUNCTIONS:
            for function in listed(value):
                require_callable(name, function)
            checked[name] = value if name == "prefix_allowed_tokens_fn" else listed(value)
        else:
            checked[name] = in_range(name, value, known)
    return checked


def _samples(requested: dict[str, Any]) -> bool:
    """Return whether the answer is sampled: by `do_sample`, or else by a temperature."""
    wanted, temperature = requested.get("do_sample"), requested.get("temperature")
    cold = temperature is not None and temperature < MIN_TEMPERATURE
    message = f"do_sample = True and temperature = {temperature} exclude each other: leave one out"
    require(not (wanted and cold), "temperature", message)
    if wanted is None and temperature is None:
        for name in sorted(_WARPERS):
            message = (
                f"{name} = {requested.get(name)} acts on sampling only: give a temperature too"
            )
            require(requested.get(name) is None, name, message)
    return bool(wanted) if wanted is not None else temperature is not None and not cold


def listed(value: Any) -> list[Any]:
    """Return one value, several values or None as a list."""
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def _rehearse(model: Any, options: dict[str, Any], requested: dict[str, Any]) -> None:
    """Run `generate` for one token without the model, with its logits processors and criteria.

    Raises:
        SettingsError: `generate` refuses a keyword.
    """
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model  # PEFT adapter
    if "custom_generate" not in inspect.signature(inner.generate).parameters:
        return
    token = torch.zeros(1, 1, dtype=torch.int64, device=device_of(model))
    plain = {name: options[name] for name in options.keys() - {*_FUNCTIONS, "guidance_scale"}}
    try:
        model.generate(
            input_ids=token,
            attention_mask=torch.ones_like(token),
            custom_generate=_instead_of_decoding,
            **plain,
        )
    except Exception as error:  # transformers raises many types, all about the keywords
        listing = ", ".join(f"{name} = {_shown(requested[name])}" for name in sorted(requested))
        raise SettingsError(f"generate refuses {listing}: {reason(error)}") from error


def _instead_of_decoding(
    model: Any, input_ids: Any, logits_processor: Any, stopping_criteria: Any, **more: Any
) -> Any:
    """Apply processors and criteria to scores of zero; some check their settings only then."""
    scores = torch.zeros(1, vocabulary(model), device=input_ids.device)
    if not (logits_processor(input_ids, scores) > -math.inf).any():
        raise ValueError("it leaves no token to choose")
    stopping_criteria(input_ids, scores)
    return input_ids
