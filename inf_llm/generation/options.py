"""What a question may ask of `generate`, and what a session decides itself.

A checkpoint brings settings of its own (generation_config.json, or config.json in older ones), and
`generate` follows all that its caller leaves open. Beams, other caches or an early end do not suit
a session, and an answer of the likeliest tokens is none under a penalty. So a session leaves
nothing open: it sets every field that the installed transformers has, but for the few below.

All of it is checked before anything is read, by the rules here and then by `generate` itself.
"""

from __future__ import annotations

import functools
import inspect
import math
from typing import Any

import torch
from transformers import GenerationConfig

from inf_llm.checks import (
    LEAST_TEMPERATURE,
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
    # tokens guessed ahead: transformers feeds the whole prompt again, whatever the memory holds
    **dict.fromkeys(("assistant_model", "prompt_lookup_num_tokens", "use_mtp")),
    **dict.fromkeys(("assistant_early_exit", "assistant_ensemble_weight", "speculation_type")),
    # ways of decoding that transformers no longer has itself
    **dict.fromkeys(("constraints", "force_words_ids", "penalty_alpha", "dola_layers")),
    **dict.fromkeys(("num_beam_groups", "diversity_penalty", "low_memory")),
    **dict.fromkeys(("continuous_batching_config", "compile_config")),
    # details of beams, of tokens guessed ahead and of encoders
    "length_penalty": 1.0,
    "early_stopping": False,
    "forced_bos_token_id": None,
    **dict.fromkeys(("num_assistant_tokens", "num_assistant_tokens_schedule")),
    **dict.fromkeys(("assistant_confidence_threshold", "max_matching_ngram_size")),
    **dict.fromkeys(("assistant_lookbehind", "target_lookbehind")),
}
"""What a session is: one text, one answer, its own memory. Neither a checkpoint nor a caller may
change it."""

FROM_CHECKPOINT = frozenset({"bos_token_id", "eos_token_id", "decoder_start_token_id"})
"""Which tokens begin and end a text."""

_WARPERS = frozenset({"temperature", "top_k", *SHARES})
"""These change how a token is drawn, never which is the likeliest."""

FOR_SAMPLING = _WARPERS | {"repetition_penalty"}
"""Where an answer is sampled, what the checkpoint suggests holds if the caller says nothing."""

_FUNCTIONS = ("logits_processor", "stopping_criteria", "prefix_allowed_tokens_fn")
_OBJECTS = {*_FUNCTIONS, "synced_gpus", "negative_prompt_ids", "negative_prompt_attention_mask"}
"""What else a caller may hand to `generate`."""
_OF_ASK = ("max_new_tokens", "stop", "streamer", "on_progress", "should_stop")
"""What `Session.ask` itself has."""

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
    """Settings that the installed transformers' `GenerationConfig` has."""
    names = {name for name in vars(GenerationConfig()) if not name.startswith("_")}
    return frozenset(names - {"transformers_version"})


def own_options(tokenizer: Any, max_new_tokens: int, samples: bool = False) -> dict[str, Any]:
    """Keywords for `generate` that leave a checkpoint only `FROM_CHECKPOINT`, and `FOR_SAMPLING`
    where the answer is sampled."""
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
    asked: dict[str, Any],
    default: int = 128,
) -> dict[str, Any]:
    """Keywords for `generate` that make one answer.

    Args:
        model: as for `Session`.
        tokenizer: the model's.
        max_new_tokens: longest answer; None for that of a `generation_config`, or the default.
        asked: what the caller asks for beside, by the names that `generate` has.
        default: longest answer where nothing says it.

    Raises:
        SettingsError: something in it is not known, does not suit a session, or is refused by
            `generate`. Nothing was read or fed.
    """
    said = _flat(asked if max_new_tokens is None else asked | {"max_new_tokens": max_new_tokens})
    longest = count("max_new_tokens", said.pop("max_new_tokens", default))
    asked = _checked(_named(said), vocabulary(model))
    fit_together(asked, longest)
    samples = _samples(asked)
    if not samples:
        asked = {name: value for name, value in asked.items() if name not in _WARPERS}
    options = own_options(tokenizer, longest, samples) | asked | {"do_sample": samples}
    if asked.keys() - set(_FUNCTIONS):
        _rehearse(model, options, asked)
    return options


def _flat(asked: dict[str, Any]) -> dict[str, Any]:
    """A `generation_config` as the keywords that it stands for; those beside it go first."""
    config = asked.get("generation_config")
    if config is None:
        return {name: value for name, value in asked.items() if name != "generation_config"}
    fits = isinstance(config, GenerationConfig)
    message = f"generation_config is a {type(config).__name__}: a GenerationConfig is accepted"
    require(fits, "generation_config", message)
    said = {name: getattr(config, name, None) for name in fields()}
    said = {name: value for name, value in said.items() if value is not None}
    return _flat(said | asked | {"generation_config": None})


def _named(asked: dict[str, Any]) -> dict[str, Any]:
    """Without what is the session's own anyway; other names must be known."""
    known = (fields() | _OBJECTS) - OWN.keys()
    for name, value in asked.items():
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
    return {name: value for name, value in asked.items() if name not in OWN}


def _shown(value: Any) -> str:
    """A value in a message: its first line, cut where it is long."""
    text = (repr(value).splitlines() or [""])[0]
    return text if len(text) <= 60 else text[:57] + "..."


def _same(value: Any, own: Any) -> bool:
    return isinstance(value, bool | int | float) and value == own


def _checked(asked: dict[str, Any], known: int) -> dict[str, Any]:
    """Numbers as plain ones and functions as lists; what `generate` would ignore or fail of."""
    checked = dict(asked)
    for name, value in asked.items():
        if name in _FUNCTIONS:
            for function in listed(value):
                require_callable(name, function)
            checked[name] = value if name == "prefix_allowed_tokens_fn" else listed(value)
        else:
            checked[name] = in_range(name, value, known)
    return checked


def _samples(asked: dict[str, Any]) -> bool:
    """Whether the answer is sampled: where it is said, or there is a temperature."""
    wanted, temperature = asked.get("do_sample"), asked.get("temperature")
    cold = temperature is not None and temperature < LEAST_TEMPERATURE
    message = f"do_sample = True and temperature = {temperature} exclude each other: leave one out"
    require(not (wanted and cold), "temperature", message)
    if wanted is None and temperature is None:
        for name in sorted(_WARPERS):
            message = f"{name} = {asked.get(name)} acts on sampling only: give a temperature too"
            require(asked.get(name) is None, name, message)
    return bool(wanted) if wanted is not None else temperature is not None and not cold


def listed(value: Any) -> list[Any]:
    """One thing, several or None, as a list."""
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def _rehearse(model: Any, options: dict[str, Any], asked: dict[str, Any]) -> None:
    """Let `generate` prepare an answer to one token and use what it made, all but the model."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model  # of an adapter
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
    except Exception as error:  # transformers has many, all about what was asked
        said = ", ".join(f"{name} = {_shown(asked[name])}" for name in sorted(asked))
        raise SettingsError(f"generate refuses {said}: {reason(error)}") from error


def _instead_of_decoding(
    model: Any, input_ids: Any, logits_processor: Any, stopping_criteria: Any, **more: Any
) -> Any:
    """Some settings are looked at only when the first scores are there."""
    scores = torch.zeros(1, vocabulary(model), device=input_ids.device)
    if not (logits_processor(input_ids, scores) > -math.inf).any():
        raise ValueError("it leaves no token to choose")
    stopping_criteria(input_ids, scores)
    return input_ids
