"""The hooks of a patched model: an attention function, a mask function, and hooks on its modules.

No model code is copied, because four public extension points of transformers and torch suffice: an
attention function, a mask function that makes no (queries x keys) mask, a hook that keeps rotary
modules from rotating, and a pair of hooks around the decoder that record which cache is fed. All of
them are plain functions that find their state on the module that runs, so a copy of a model is a
separate patched model. `torch.compile` skips these functions and compiles everything between them.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import causal_mask_function

from inf_llm.attention.base import Rule, running
from inf_llm.errors import UnsupportedInputError
from inf_llm.hf.cache import MemoryCache, adopt
from inf_llm.hf.cache_layer import MemoryLayer
from inf_llm.hf.decoder import cache_argument, named_arguments, take_cache
from inf_llm.hf.order import check_mask, check_positions
from inf_llm.hf.patched import AGAIN, Feed, Patched, begin_feed, end_feed, state_of
from inf_llm.hf.rotary import identity_like
from inf_llm.kernels import Scoring

NAME = "inf_llm"


def set_implementation(model: Any, decoder: Any, name: str | None) -> None:
    """Set the attention implementation of a model's text part; other parts keep their own."""
    decoder.set_attn_implementation(name)
    # a model around the decoder makes masks from its own copy of the text configuration
    model.config.get_text_config(decoder=True)._attn_implementation_internal = name


def install_hooks(model: Any, decoder: Any, state: Patched) -> None:
    """Put all hooks on a model; `remove_hooks` removes them."""
    state.before = decoder.config._attn_implementation
    set_implementation(model, decoder, NAME)
    state.hook_rotary(decoder, _stand_still)
    state.hooks += [
        decoder.register_forward_pre_hook(_enter, with_kwargs=True, prepend=True),
        decoder.register_forward_hook(_check_fed),
        decoder.register_forward_hook(end_feed, always_call=True),
    ]


def remove_hooks(model: Any, decoder: Any, state: Patched) -> None:
    """Remove the hooks of `install_hooks`, and restore the model's attention implementation."""
    for hook in state.hooks:
        hook.remove()
    if state.before is not None:
        set_implementation(model, decoder, state.before)


def _stand_still(module: nn.Module, args: Any, output: Any) -> Any:
    """Replace a rotary module's table with that of no rotation."""
    return identity_like(output)


@torch.compiler.disable
def _enter(
    decoder: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Before the decoder runs: check its inputs, make its cache a memory, and record the pass."""
    state = state_of(decoder)
    assert state is not None, "this hook belongs to a patch"
    _check_in_force(decoder)
    state.check_rotary()
    kwargs = named_arguments(decoder, args, kwargs)
    _check_outputs(decoder.config, kwargs)
    cache, memory, seen, expected = take_cache(decoder, kwargs), None, 0, None
    if cache is not None:
        kwargs[cache_argument(decoder)] = memory = adopt(cache, state.factories)
        for part, prompt_end in memory.ends(running.get().prompt_end):
            part.decode_from(_decode_start(state, part, prompt_end))
        seen, expected = _seen(memory, _layers(decoder, state)), memory.positions
    ids, embeddings = kwargs.get("input_ids"), kwargs.get("inputs_embeds")
    check_mask(kwargs.get("attention_mask"), embeddings if ids is None else ids, seen)
    check_positions(kwargs.get("position_ids"), kwargs.get("attention_mask"), seen, expected)
    begin_feed(state, memory)
    return (), kwargs


def _layers(decoder: Any, state: Patched) -> list[int]:
    """Return the layers with a memory that a decoder runs: fewer if it exits early, or was cut."""
    count = getattr(decoder.config, "num_hidden_layers", None) or len(state.factories)
    return [index for index in state.factories if index < count] or list(state.factories)


def _seen(memory: MemoryCache, layers: list[int]) -> int:
    """Return the number of tokens that a memory has seen, padding included.

    Raises:
        UnsupportedInputError: its layers have seen different numbers of tokens.
    """
    held: list[Any] = memory.layers
    lengths = [held[index].get_seq_length() for index in layers]
    if len(set(lengths)) > 1:
        raise UnsupportedInputError(
            f"a feed of this memory broke off: some layers have seen {max(lengths)} tokens, others "
            f"{min(lengths)}: read the text again into inf_llm.new_cache(model)"
        )
    return lengths[0]


def _check_in_force(decoder: Any) -> None:
    """Check that the attention implementation is still that of the patch.

    Raises:
        UnsupportedInputError: another one was set after the patch.
    """
    name = decoder.config._attn_implementation
    if name != NAME:
        raise UnsupportedInputError(
            f"the attention implementation of this {type(decoder).__name__} was set to {name!r} "
            "after inf_llm.patch, so the patch is not in force: call inf_llm.unpatch(model) "
            "first, set it, and patch again"
        )


def _check_outputs(config: Any, kwargs: dict[str, Any]) -> None:
    wanted = kwargs.get("output_attentions")
    if config.output_attentions if wanted is None else wanted:
        raise UnsupportedInputError(
            "output_attentions = True: a patched model makes no (queries x keys) matrix of "
            "attention; leave it out, call inf_llm.unpatch(model), or use inf_llm.trace"
        )


def _decode_start(state: Patched, memory: MemoryCache, prompt_end: int | None) -> int | None:
    """Return the position from which each token is an execution block of its own, or None.

    Inside `generate` these are the tokens after the prompt. So a pass that verifies several drafted
    tokens computes the same as decoding them one by one, and a wrong draft can be taken back. The
    last token of the prompt is included if the settings say so. It is also included for an
    assistant, which must be able to take that token back.
    """
    if prompt_end is None:
        return None
    last_too = memory.assists or getattr(state.settings, "split_last", True)
    return prompt_end - 1 if last_too else prompt_end


@torch.compiler.disable
def _check_fed(decoder: Any, args: Any, output: Any) -> None:
    """After the decoder ran: check that every layer took its attention from the patch.

    Raises:
        UnsupportedInputError: a layer did not, so the output of the model is invalid.
    """
    feed: Feed = running.get().feed
    missing = sorted(set(_layers(decoder, feed.state)) - feed.fed)
    if missing:
        raise UnsupportedInputError(
            f"layer {', '.join(map(str, missing))} of this {type(decoder).__name__} did not ask "
            "for the patch's attention: a module was put in or taken out, or its configuration "
            f"was changed, after inf_llm.patch: {AGAIN}"
        )


@torch.compiler.disable
def _attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Compute attention for transformers: q, k, v are (B, H, L, D), the output is (B, L, H, Dv)."""
    now = running.get()
    feed: Feed | None = now.feed
    if state_of(module) is None:
        raise UnsupportedInputError(
            f"this {type(module).__name__} is not patched, but its configuration asks for the "
            "attention of inf_llm: it was put in after inf_llm.patch, or shares the configuration "
            "object of a patched model. Give each model a copy.deepcopy(config) before patching"
        )
    if feed is None or feed.state is not state_of(module):
        raise UnsupportedInputError(
            f"{type(module).__name__} was called outside its decoder, which says what memory it "
            "feeds: call the model, or inf_llm.unpatch it first"
        )
    feed.fed.add(module.layer_idx)
    auto = torch.is_autocast_enabled(query.device.type)
    if auto or not query.dtype == key.dtype == value.dtype:
        query, key, value = in_one_dtype(query, key, value)
    layer: Any = (
        MemoryLayer(feed.state.factories[module.layer_idx])  # no cache: used for this call only
        if feed.cache is None
        else feed.cache.layers[module.layer_idx]
    )
    rule = make_rule(query, feed.state.settings.kernel_asked, **kwargs)
    for observer in now.observers:
        observer.on_layer(feed.state, module.layer_idx, layer.rows, now.prompt_end)
    with torch.autocast(query.device.type, enabled=False) if auto else nullcontext():
        out = layer.attend(query, key, value, attention_mask, rule)
    if torch.is_grad_enabled() and query.requires_grad:
        out = _ForInference.apply(out, query)
    return out.transpose(1, 2).contiguous(), None


def make_rule(
    query: Tensor,
    kernel: str,
    scaling: float | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **ignored: Any,
) -> Rule:
    """Return a model's scoring rule, from the arguments of its call of the attention function."""
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    return Rule(Scoring(scale, softcap, kernel), s_aux)


def in_one_dtype(*parts: Tensor) -> tuple[Tensor, ...]:
    """Return queries, keys and values in the dtype that softmax attention would get.

    Under `torch.autocast` that is autocast's dtype. Without it the dtypes differ only in a model
    that rotates or normalizes in float32, and the values have the dtype of the layers that follow.
    """
    kind = parts[0].device.type
    auto = torch.is_autocast_enabled(kind)
    dtype = torch.get_autocast_dtype(kind) if auto else parts[-1].dtype
    return tuple(part.to(dtype) for part in parts)


def _mask(
    batch_size: int,
    q_length: int,
    *args: Any,
    q_offset: int = 0,
    mask_function: Callable[..., Any] | None = None,
    attention_mask: Tensor | None = None,
    **kwargs: Any,
) -> Tensor | None:
    """Return the padding mask (B, tokens) unchanged, or None where there is no padding.

    Raises:
        UnsupportedInputError: the model lets some tokens attend to later ones.
    """
    if mask_function not in (None, causal_mask_function) and q_length > 1:
        _check_order(mask_function, batch_size, q_length, int(q_offset), kwargs.get("device"))
    return None if attention_mask is None or bool(attention_mask.all()) else attention_mask


def _check_order(mask_function: Any, rows: int, length: int, first: int, device: Any) -> None:
    """Check by the model's own rule that no token attends to the next one."""
    query = torch.arange(first, first + length - 1, device=device)
    row = torch.arange(rows, device=device)[:, None]
    if bool(torch.as_tensor(mask_function(row, torch.zeros_like(row), query, query + 1)).any()):
        raise UnsupportedInputError(
            "this model lets some of these tokens see later ones (the parts of an image, or a "
            "prefix), which a patched model does not do: feed text alone, or inf_llm.unpatch it"
        )


AttentionInterface.register(NAME, _attention)
AttentionMaskInterface.register(NAME, _mask)


class _ForInference(torch.autograd.Function):
    """Returns attention output unchanged; computing its gradient is an error with the reason."""

    @staticmethod
    def forward(ctx: Any, output: Tensor, query: Tensor) -> Tensor:
        return output.view_as(output)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        raise UnsupportedInputError(
            "a patched model computes no gradients: call inf_llm.unpatch(model) before training"
        )
