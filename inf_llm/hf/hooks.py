"""What a patched model runs through: an attention function, a mask function, and hooks around it.

Four public hooks of transformers and torch do it, so no model code is copied: an attention
function, a mask function that makes no (queries x keys) mask, a hook that keeps rotary modules from
rotating, and a pair around the decoder that says which cache is being fed. They find each other
through a context variable, which several threads may use at once. `torch.compile` leaves these
functions alone and compiles all between them.
"""

from __future__ import annotations

import contextvars
import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.cache_utils import DynamicCache
from transformers.generation import GenerationMode

from inf_llm.attention.base import Rule, watching
from inf_llm.errors import UnsupportedInputError
from inf_llm.hf.cache import MakeAttention, MemoryCache, MemoryLayer, adopt
from inf_llm.hf.order import check_positions
from inf_llm.hf.rotary import identity_like, rotary_modules
from inf_llm.kernels import Scoring
from inf_llm.settings import OriginSettings

NAME = "inf_llm"


@dataclass
class Patched:
    """What was done to a model, so that it can work and be undone.

    Attributes:
        settings: the attention settings in force.
        makers: per layer index, what makes its attention object.
        undo: steps that take the patch away, last one first.
    """

    settings: OriginSettings
    makers: dict[int, MakeAttention] = field(default_factory=dict)
    undo: list[Callable[[], object]] = field(default_factory=list)


@dataclass(frozen=True)
class _Feed:
    """One forward call: the patch it runs under, and the memory it feeds, if any."""

    state: Patched
    cache: MemoryCache | None


_feed: contextvars.ContextVar[_Feed] = contextvars.ContextVar("feed")
_prompt_end: contextvars.ContextVar[int | None] = contextvars.ContextVar("prompt_end", default=None)


def install_hooks(model: Any, state: Patched) -> None:
    """Put all hooks on the model; `state.undo` takes them away."""
    before = model.config._attn_implementation
    AttentionInterface.register(NAME, _attention)
    AttentionMaskInterface.register(NAME, _mask)
    model.set_attn_implementation(NAME)
    state.undo.append(lambda: model.set_attn_implementation(before))
    for module in rotary_modules(model):
        hook = module.register_forward_hook(lambda module, args, output: identity_like(output))
        state.undo.append(hook.remove)
    enter = functools.partial(_enter, state, model.config.get_text_config(decoder=True))
    decoder = _decoder(model)
    state.undo.append(
        decoder.register_forward_pre_hook(enter, with_kwargs=True, prepend=True).remove
    )
    state.undo.append(decoder.register_forward_hook(_leave, always_call=True).remove)
    if hasattr(model, "generate"):
        _wrap_generate(model, state)


def _decoder(model: Any) -> nn.Module:
    """The part that runs the layers and is handed the cache."""
    decoder = model.get_decoder() if hasattr(model, "get_decoder") else None
    return decoder if isinstance(decoder, PreTrainedModel) else model.base_model


@torch.compiler.disable
def _enter(
    state: Patched, config: Any, decoder: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Before the decoder runs: see that its cache is a memory, and publish it."""
    cache = kwargs.get("past_key_values")
    wanted = kwargs.get("use_cache")
    if cache is None and (config.use_cache if wanted is None else wanted):
        cache = kwargs["past_key_values"] = DynamicCache(config=config)
    memory = None
    if cache is not None:
        memory = adopt(cache, state.makers)
        memory.alone_from(_first_alone(state, memory, _prompt_end.get()))
    seen = 0 if memory is None else memory.memories[0].get_seq_length()
    check_positions(kwargs.get("position_ids"), kwargs.get("attention_mask"), seen)
    _feed.set(_Feed(state, memory))
    return args, kwargs


def _first_alone(state: Patched, memory: MemoryCache, prompt_end: int | None) -> int | None:
    """From which token on every token is an execution block of its own; None: none of them.

    Inside `generate` it is so for what follows the prompt, so that verifying guessed tokens at once
    is the same as decoding them, and a wrong guess can be taken back; and for the prompt's last
    token, where the settings ask for it. An assistant must be able to take that one back too.
    """
    if prompt_end is None:
        return None
    last_too = memory.assists or getattr(state.settings, "split_last", True)
    return prompt_end - 1 if last_too else prompt_end


@torch.compiler.disable
def _leave(decoder: nn.Module, args: Any, output: Any) -> None:
    feed = _feed.get(None)
    if feed is not None:
        _feed.set(_Feed(feed.state, None))


@torch.compiler.disable
def _attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention as transformers calls it: q, k, v as (B, H, L, D), the output as (B, L, H, Dv)."""
    feed = _feed.get()
    layer: Any = (
        MemoryLayer(feed.state.makers[module.layer_idx])  # no cache: nothing outlives this call
        if feed.cache is None
        else feed.cache.layers[module.layer_idx]
    )
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    rule = Rule(Scoring(scale, softcap, feed.state.settings.kernel_asked), s_aux)
    for watcher in watching.get():
        watcher.enters(feed.state, module.layer_idx, layer.rows, _prompt_end.get())
    with torch.no_grad():
        out = layer.attend(query, key, value, attention_mask, rule)
    if torch.is_grad_enabled() and query.requires_grad:
        out = _ForInference.apply(out, query)
    return out.transpose(1, 2).contiguous(), None


def _mask(*args: Any, attention_mask: Tensor | None = None, **kwargs: Any) -> Tensor | None:
    """The padding mask (B, tokens) as it came, or None where there is no padding."""
    return None if attention_mask is None or bool(attention_mask.all()) else attention_mask


class _ForInference(torch.autograd.Function):
    """Passes attention output on; asked for a gradient, says why there is none."""

    @staticmethod
    def forward(ctx: Any, output: Tensor, query: Tensor) -> Tensor:
        return output.view_as(output)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        raise UnsupportedInputError(
            "a patched model computes no gradients: call inf_llm.unpatch(model) before training"
        )


def _wrap_generate(model: Any, state: Patched) -> None:
    """Let `generate` say where the prompt ends, and hand its caches over before it uses them."""
    generate, prepare = model.generate, model._prepare_cache_for_generation

    @functools.wraps(generate)
    def generate_with_memory(*args: Any, **kwargs: Any) -> Any:
        token = _prompt_end.set(_prompt_length(args, kwargs))
        try:
            return generate(*args, **kwargs)
        finally:
            _prompt_end.reset(token)

    @functools.wraps(prepare)
    def prepare_memory(
        generation_config: Any, model_kwargs: Any, generation_mode: Any, *args: Any, **kwargs: Any
    ) -> Any:
        result = prepare(generation_config, model_kwargs, generation_mode, *args, **kwargs)
        cache = model_kwargs.get("past_key_values")
        if cache is not None:
            adopt(cache, state.makers)
            cache.assists = bool(getattr(generation_config, "is_assistant", False))
            if cache.assists or generation_mode == GenerationMode.ASSISTED_GENERATION:
                cache.activate_past_recording()
        return result

    for name, method in (
        ("generate", generate_with_memory),
        ("_prepare_cache_for_generation", prepare_memory),
    ):
        model.__dict__[name] = method
        state.undo.append(functools.partial(model.__dict__.pop, name))


def _prompt_length(args: tuple[Any, ...], kwargs: dict[str, Any]) -> int | None:
    """Length of the prompt that `generate` was given, what a cache holds already included."""
    names = ("inputs", "input_ids", "inputs_embeds", "attention_mask")
    given = [*args[:1], *(kwargs.get(name) for name in names)]
    lengths = [value.shape[1] for value in given if torch.is_tensor(value) and value.dim() > 1]
    return max(lengths, default=None)
