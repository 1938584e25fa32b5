"""Other rotary positions for a model that keeps its own full attention (NTK, PI, YaRN)."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import nn
from transformers.cache_utils import Cache, DynamicCache

from inf_llm.errors import UnsupportedInputError
from inf_llm.hf.cache import PatchCache
from inf_llm.hf.decoder import cache_argument, named_arguments, take_cache
from inf_llm.hf.patched import Patched, begin_feed, end_feed, state_of
from inf_llm.hf.probe import probe
from inf_llm.hf.rotary import RotaryCall, like, rotary_modules
from inf_llm.rope import Rope, exact_device
from inf_llm.scaling import rescale
from inf_llm.settings import OriginSettings

_ROPES = "_inf_llm_ropes"


def rescale_positions(decoder: nn.Module, state: Patched) -> None:
    """Make every rotary module use the settings' base and scaling, in its own layout."""
    for fact in probe(decoder, state.settings.sees).values():
        if fact.call is not None:
            ropes = fact.call.module.__dict__.setdefault(_ROPES, {})
            ropes[fact.call.arguments] = rescale(fact.rope, state.settings)
    state.hook_rotary(decoder, _rescaled, with_kwargs=True)
    state.hooks += [
        decoder.register_forward_pre_hook(_enter, with_kwargs=True, prepend=True),
        decoder.register_forward_hook(end_feed, always_call=True),
    ]


def forget_ropes(decoder: nn.Module) -> None:
    """Remove the ropes that `rescale_positions` stored on the rotary modules."""
    for module in rotary_modules(decoder):
        module.__dict__.pop(_ROPES, None)


class MovedCache(PatchCache):
    """A cache whose keys are rotated to the positions of a patch.

    Attributes:
        settings: those of the patch.
    """

    settings: OriginSettings


@torch.compiler.disable
def _enter(
    decoder: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Before the decoder runs: check that the keys in its cache have the positions of the patch."""
    state = state_of(decoder)
    assert state is not None, "this hook belongs to a patch"
    state.check_rotary()
    kwargs = named_arguments(decoder, args, kwargs)
    cache = take_cache(decoder, kwargs)
    if cache is not None:
        kwargs[cache_argument(decoder)] = cache = _moved(cache, state.settings)
    begin_feed(state, cache)
    return (), kwargs


def _moved(cache: Cache, settings: OriginSettings) -> Cache:
    """Return the cache, marked with the positions of its keys; other kinds stay unmarked."""
    if type(cache) is DynamicCache and not cache.get_seq_length():
        cache.__class__ = MovedCache
        cast(MovedCache, cache).settings = settings
    if not isinstance(cache, DynamicCache) or getattr(cache, "settings", None) == settings:
        return cache
    raise UnsupportedInputError(
        f"this {type(cache).__name__} holds {cache.get_seq_length()} tokens at other positions "
        "than those of this patch (it was made before inf_llm.patch, or with other settings): "
        "read the text again into an empty cache"
    )


def _rescaled(module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
    """Replace a rotary module's table with that of the rope stored on the module."""
    ropes: dict[Any, Rope] = module.__dict__.get(_ROPES, {})
    rope = ropes.get(RotaryCall.from_call(module, args, kwargs).arguments)
    if rope is None:
        return output
    positions = kwargs["position_ids"] if "position_ids" in kwargs else args[1]
    exact = exact_device(positions.device)
    angles = positions.to(exact).double()[..., None] * rope.frequencies.abs().to(exact)
    cos, sin = angles.cos() * rope.amplitude, angles.sin() * rope.amplitude
    return like(output, cos.float().to(positions.device), sin.float().to(positions.device))
