"""Wrappers of a patched model's `generate`: use a memory as cache, record the prompt's length."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import MethodType
from typing import Any

import torch
from transformers.generation import GenerationMode

from inf_llm.attention.base import running
from inf_llm.errors import UnsupportedInputError
from inf_llm.hf.cache import MemoryCache, adopt
from inf_llm.hf.decoder import CACHE_NAMES, decoder_of
from inf_llm.hf.patched import state_of


def wrap_generate(model: Any) -> None:
    """Wrap a model's methods for generation; `unwrap_generate` removes the wrappers."""
    if hasattr(model, "generate"):
        for name, around in _AROUND.items():
            model.__dict__[name] = _Around(model, name, around)


def unwrap_generate(model: Any) -> None:
    """Remove the wrappers of `wrap_generate`."""
    for name in _AROUND:
        model.__dict__.pop(name, None)


class _Around:
    """A wrapped method of a model; it is copied and saved with the model."""

    def __init__(self, model: Any, name: str, around: Callable[..., Any]) -> None:
        self.model, self.name, self.around = model, name, around

    @property
    def __wrapped__(self) -> Callable[..., Any]:
        """The original method, which gives the wrapper its signature and docstring."""
        method: Callable[..., Any] = getattr(type(self.model), self.name)
        return MethodType(method, self.model)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.around(self.model, getattr(type(self.model), self.name), *args, **kwargs)


def _generate(model: Any, generate: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call `generate`, with the end of the prompt recorded."""
    with answering(_prompt_length(args, kwargs)):
        return generate(model, *args, **kwargs)


@contextmanager
def answering(prompt: int | None) -> Iterator[None]:
    """Mark all that is fed within the statement as a prompt of `prompt` tokens, and its answer."""
    token = running.set(replace(running.get(), prompt_end=prompt))
    try:
        yield
    finally:
        running.reset(token)


def _prepare_cache(
    model: Any,
    prepare: Callable[..., Any],
    generation_config: Any,
    model_kwargs: Any,
    generation_mode: Any,
    *args: Any,
    **kwargs: Any,
) -> Any:
    """Call `_prepare_cache_for_generation`, and turn its cache into a memory."""
    given = _cache_in(model_kwargs)
    if isinstance(given, MemoryCache) and generation_config.use_cache is False:
        raise UnsupportedInputError(
            "use_cache = False contradicts the memory that is passed: pass use_cache=True (a "
            "checkpoint's own generation_config.json may say false)"
        )
    result = prepare(model, generation_config, model_kwargs, generation_mode, *args, **kwargs)
    cache = _cache_in(model_kwargs)
    state = state_of(decoder_of(model))
    if cache is not None and state is not None:
        memory = adopt(cache, state.factories)
        memory.assists = bool(getattr(generation_config, "is_assistant", False))
        if memory.assists or generation_mode == GenerationMode.ASSISTED_GENERATION:
            memory.activate_past_recording()
    return result


_AROUND: dict[str, Callable[..., Any]] = {
    "generate": _generate,
    "_prepare_cache_for_generation": _prepare_cache,
}


def _cache_in(kwargs: dict[str, Any]) -> Any:
    return next((kwargs[name] for name in CACHE_NAMES if kwargs.get(name) is not None), None)


def _prompt_length(args: tuple[Any, ...], kwargs: dict[str, Any]) -> int | None:
    """Return the length of the prompt of a call of `generate`, tokens in the cache included."""
    names = ("inputs", "input_ids", "inputs_embeds", "attention_mask")
    given = [*args[:1], *(kwargs.get(name) for name in names)]
    lengths = [value.shape[1] for value in given if torch.is_tensor(value) and value.dim() > 1]
    return max(lengths, default=None)
