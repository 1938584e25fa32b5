"""Access to parts of a model: the model inside its wrappers, and its text decoder."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, DynamicCache

from inf_llm.errors import UnsupportedInputError

CACHE_NAMES = ("cache", "past_key_values")
"""Names of the cache argument: the one since transformers 5.24, and the one before."""
_FILLING_ADAPTERS = ("PREFIX_TUNING", "CARTRIDGE")


def unwrap(model: Any) -> PreTrainedModel:
    """Return the transformers model inside a wrapper of PEFT or `torch.compile`.

    Raises:
        UnsupportedInputError: `model` is no such model, and wraps none.
    """
    if isinstance(model, PreTrainedModel):
        return model
    if hasattr(model, "get_base_model"):  # PEFT
        return unwrap(model.get_base_model())
    if hasattr(model, "_orig_mod"):  # torch.compile
        return unwrap(model._orig_mod)
    raise UnsupportedInputError(_refusal(model))


def trained_length(model: Any) -> int | None:
    """Return the length in tokens that a model was trained with, or None if it is not stated."""
    length = getattr(model.config.get_text_config(decoder=True), "max_position_embeddings", None)
    return int(length) if length else None


def prefix_adapter(model: Any) -> str | None:
    """Return the name of PEFT's method if it fills the cache before the text, otherwise None."""
    config = (
        getattr(model, "active_peft_config", None) if hasattr(model, "get_base_model") else None
    )
    method = getattr(getattr(config, "peft_type", None), "value", None)
    return method if method in _FILLING_ADAPTERS else None


def _refusal(model: Any) -> str:
    kind = type(model).__name__
    wanted = "a causal language model of transformers (a PreTrainedModel) is needed"
    if isinstance(model, str) or hasattr(model, "__fspath__"):
        return (
            f"{str(model)!r} is a path, and {wanted}: load it first, with "
            "AutoModelForCausalLM.from_pretrained, or with inf_llm.load and a configuration"
        )
    for name in ("model", "module"):  # of pipelines; of DataParallel and similar
        if isinstance(getattr(model, name, None), PreTrainedModel):
            return f"this is a {kind}, and {wanted}: pass the one inside, its .{name}"
    return f"this is {'None' if model is None else f'a {kind}'}, and {wanted}"


def decoder_of(model: PreTrainedModel) -> nn.Module:
    """Return the module that runs the text layers and receives the cache."""
    decoder = model.get_decoder() if hasattr(model, "get_decoder") else None
    return decoder if isinstance(decoder, PreTrainedModel) else model.base_model


def device_of(model: Any) -> torch.device:
    """Return the device of a model's input tokens.

    Weights that accelerate offloads are on "meta" between passes. Then the device is that of
    accelerate's hook.
    """
    table = model.get_input_embeddings()
    at: torch.device = next(table.parameters()).device
    hook = getattr(table, "_hf_hook", None)
    runs_at = [
        getattr(each, "execution_device", None) for each in (hook, *getattr(hook, "hooks", ()))
    ]
    named = [device for device in runs_at if device is not None]
    return torch.device(named[0]) if at.type == "meta" and named else at


def parameter_names(module: nn.Module) -> tuple[str, ...]:
    """Return the names of the parameters of a module's `forward`, in order."""
    return _parameters(type(module).forward)


@functools.cache
def _parameters(method: Callable[..., Any]) -> tuple[str, ...]:
    return tuple(inspect.signature(method).parameters)[1:]


def cache_argument(model: Any) -> str:
    """Return the name of the cache argument of this model's `forward`."""
    names = parameter_names(unwrap(model))
    return next((name for name in CACHE_NAMES if name in names), CACHE_NAMES[-1])


def named_arguments(
    decoder: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, Any]:
    """Return all arguments of a call of `decoder`, by name."""
    return {**dict(zip(parameter_names(decoder), args, strict=False)), **kwargs}


def take_cache(decoder: Any, kwargs: dict[str, Any]) -> Cache | None:
    """Take the cache out of a call's arguments, or make one if none is given.

    Returns:
        The cache, or None if none is given and `use_cache` is false.
    """
    given = [name for name in CACHE_NAMES if kwargs.get(name) is not None]
    if given:
        cache: Cache = kwargs.pop(given[0])
        return cache
    wanted = kwargs.get("use_cache")
    if getattr(decoder.config, "use_cache", True) if wanted is None else wanted:
        return DynamicCache(config=decoder.config.get_text_config(decoder=True))
    return None


def with_cache(model: Any, cache: Any) -> dict[str, Any]:
    """Return the keyword arguments that pass this cache to `model`, or to its `generate`."""
    return {cache_argument(model): cache, "use_cache": True}
