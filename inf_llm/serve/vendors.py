"""Parameters that other servers and their clients have, and the treatment of each by this server.

A parameter that is null is always accepted. A parameter of `HARMLESS` is accepted with any value,
because it cannot change the answer. A parameter of `NEUTRAL` is accepted with the listed values,
which have no effect, and refused with any other value. All other names are refused.

Sources: the API references and clients of OpenAI, llama.cpp, vLLM, SGLang, TGI, Ollama, LM Studio,
LocalAI, OpenRouter, Mistral, KoboldCpp, text-generation-webui, Open WebUI, Continue and LangChain.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

from inf_llm.registry import accepted
from inf_llm.serve.errors import ApiError, unsupported
from inf_llm.serve.values import shown

_HARMLESS_NAMES = (
    # identity of the user, the request and the conversation
    "user user_id metadata tags store service_tier safety_identifier prompt_cache_key "
    "prompt_cache_retention session_id chat_id conversation_id id request_id rid trace trace_id "
    # model loading, cache and routing of another server
    "keep_alive ttl num_ctx n_ctx num_batch n_batch num_gpu main_gpu num_thread n_threads numa "
    "low_vram f16_kv use_mmap use_mlock num_keep n_keep n_discard cache_prompt id_slot slot_id "
    "provider route "
    # statistics that this server does not report
    "timings_per_token return_progress "
    # details of samplers, penalties, beams and special tokens: the main parameters are in NEUTRAL
    "dynatemp_exponent dynatemp_low dynatemp_high xtc_threshold smoothing_curve mirostat_tau "
    "mirostat_eta dry_base dry_allowed_length dry_penalty_last_n dry_range dry_sequence_breakers "
    "repeat_last_n penalize_nl repetition_penalty_range repetition_penalty_slope rep_pen_range "
    "rep_pen_slope length_penalty early_stopping "
    "spaces_between_special_tokens"
)
HARMLESS = frozenset(_HARMLESS_NAMES.split())
"""Accepted with any value, without effect."""

_NEUTRAL_ROWS: list[tuple[tuple[Any, ...], str]] = [
    # several answers and beam search; samplers; penalties; reports about tokens
    ((1,), "best_of num_beams num_return_sequences"),
    ((0,), "top_a xtc_probability smoothing_factor dynatemp_range epsilon_cutoff eta_cutoff"),
    ((0,), "penalty_alpha mirostat mirostat_mode min_keep"),
    ((-1, 0), "top_n_sigma nsigma"),
    ((1,), "typical_p typical typ_p tfs_z tfs guidance_scale"),
    ((0,), "dry_multiplier no_repeat_ngram_size"),
    ((1,), "repeat_penalty rep_pen encoder_repetition_penalty"),
    ((0,), "n_probs top_n_tokens"),
    # minimum lengths of an answer; priority of a request
    ((0,), "min_new_tokens min_length priority"),
    # boolean options
    ((False,), "use_beam_search dynamic_temperature watermark ban_eos_token"),
    ((False,), "include_stop_str_in_output no_stop_trim details echo return_full_text"),
    ((False,), "return_token_ids return_tokens return_tokens_as_token_ids return_hidden_states"),
    ((False,), "post_sampling_probs decoder_input_details enable_search safe_prompt raw"),
    ((True,), "skip_special_tokens"),
    # tools, texts, adapters, and tokens that are allowed or forbidden
    (([],), "tools functions tool_ids tool_servers plugins files images context models"),
    (([],), "transforms lora logits_processors bad_words bad_words_ids allowed_token_ids"),
    (([],), "banned_tokens banned_strings stop_token_ids stop_regex"),
    (("none", "auto"), "tool_choice function_call"),
    ((False, True), "parallel_tool_calls"),
    (({},), "features variables kv_transfer_params vllm_xargs chat_template_kwargs"),
    (({},), "mm_processor_kwargs"),
    (({"include": False},), "usage"),
    # form of the answer, and layout of the prompt
    ((["text"],), "modalities"),
    (("medium",), "verbosity"),
    (("",), "format grammar regex ebnf suffix template system negative_prompt custom_token_bans"),
    (("", []), "samplers"),
    # other names of parameters that this server has, see INSTEAD
    ((-1,), "n_predict num_predict max_new_tokens max_output_tokens sampler_seed random_seed"),
    (([],), "stop_sequences"),
    ((), "do_sample"),
]
NEUTRAL = {name: values for values, names in _NEUTRAL_ROWS for name in names.split()}
"""Accepted with these values only, which have no effect."""

REASONING: dict[str, tuple[Any, ...]] = {
    "reasoning_effort": ("none",),
    "reasoning_format": ("none", "auto"),
    "thinking": ({"type": "disabled"},),
    "reasoning": ({"effort": "none"}, {"enabled": False}),
    "chat_template_kwargs": ({"enable_thinking": False}, {"thinking": False}),
    **dict.fromkeys(("think", "enable_thinking"), (False,)),
    **dict.fromkeys(("include_reasoning", "separate_reasoning", "stream_reasoning"), (False, True)),
}
"""More values as in `NEUTRAL`, for a model whose chat template has no switch for reasoning. With a
switch these values would have an effect, and they are refused."""

INSTEAD = {
    **dict.fromkeys(("n_predict", "num_predict", "max_new_tokens"), "max_tokens"),
    "max_output_tokens": "max_tokens",
    **dict.fromkeys(("sampler_seed", "random_seed"), "seed"),
    "stop_sequences": "stop",
    **dict.fromkeys(("repeat_penalty", "rep_pen"), "repetition_penalty"),
    **dict.fromkeys(("min_new_tokens", "min_length"), "min_tokens"),
    "ban_eos_token": "ignore_eos",
    "do_sample": "temperature",
}
"""The name of each parameter on this server."""


def check_names(data: dict[str, Any], known: Collection[str], thinks: bool = False) -> None:
    """Refuse parameters that have an effect on other servers but none on this one.

    Args:
        data: the JSON object of a request.
        known: names of the parameters that the request has.
        thinks: whether the model's chat template has a switch for reasoning.

    Raises:
        ApiError: a parameter is unknown, or has an unsupported value.
    """
    for name, value in data.items():
        if name in known or name in HARMLESS or value is None:
            continue
        if name == "options" and isinstance(value, dict):
            _check_options(value, thinks)
        elif name in NEUTRAL or name in REASONING:
            _check_neutral(name, value, thinks)
        else:
            raise ApiError(
                400,
                f"{name[:60]!r} is not a parameter of this request; {accepted(name[:60], known)}",
                "unknown_parameter",
                name,
            )


def _check_options(options: dict[str, Any], thinks: bool) -> None:
    """Refuse parameters with an effect in `options`, the object that Ollama's clients send."""
    try:
        check_names(options, (), thinks)
    except ApiError as error:
        name = f"options.{error.param}"[:80]
        raise unsupported(
            name, f"{name} is not taken here: leave it out, or give it in the request itself"
        ) from None


def _check_neutral(name: str, value: Any, thinks: bool) -> None:
    values = NEUTRAL.get(name, ()) + (() if thinks else REASONING.get(name, ()))
    if any(_same(value, harmless) for harmless in values):
        return
    instead = (
        [INSTEAD[name]] if name in INSTEAD else [json.dumps(v) for v in values if v is not False]
    )
    raise unsupported(
        name,
        f"{name} = {shown(value)} is not supported by this server: "
        f"{', or '.join(['leave it out', *(f'give {one}' for one in instead)])}",
    )


def _same(value: Any, harmless: Any) -> bool:
    """Return whether two values are equal as JSON: 1 equals 1.0, but not true."""
    return isinstance(value, bool) is isinstance(harmless, bool) and bool(value == harmless)
