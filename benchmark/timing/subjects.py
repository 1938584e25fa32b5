"""The timed subjects: one model, patched in several ways, each with its own cache."""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache, DynamicLayer

from benchmark.timing.presets import Preset
from inf_llm.errors import InfLLMError
from inf_llm.generation.prefill import empty_cache, held
from inf_llm.hf.cache import MemoryCache
from inf_llm.hf.decoder import with_cache
from inf_llm.hf.patch import patch
from inf_llm.registry import accepted
from inf_llm.settings import WindowSettings
from inf_llm.variants import KERNEL

TYPES = ("origin", "stream-lm", "inf-llm")


@dataclass
class Subject:
    """One way to compute attention.

    Attributes:
        name: name on the command line, `type` or `type:kernel`.
        model: the model, patched or not.
        prefill_limit: longest prompt that the subject reads.
        decode_limit: longest context from which the subject decodes; beyond `prefill_limit` its
            cache is filled with random keys and values.
        cache: cache of the tokens read.
        seen: number of tokens in the cache.
    """

    name: str
    model: PreTrainedModel
    prefill_limit: int
    decode_limit: int
    cache: DynamicCache = field(default_factory=DynamicCache)
    seen: int = 0

    def begin(self) -> None:
        """Start with an empty cache."""
        self.cache = empty_cache(self.model)
        self.seen = 0

    def feed(self, tokens: Tensor, cache: DynamicCache | None = None) -> None:
        """Read tokens (1, L) into the cache, or into the branch `cache`; logits for the last."""
        self.model(
            input_ids=tokens,
            logits_to_keep=1,
            **with_cache(self.model, self.cache if cache is None else cache),
        )
        if cache is None:
            self.seen += tokens.shape[1]

    def branch(self) -> DynamicCache:
        """Return a branch of the cache to decode with, which leaves the subject's cache as is."""
        if isinstance(self.cache, MemoryCache):
            return self.cache.fork()
        twin = DynamicCache(config=self.model.config)
        # A shallow copy is enough: an update of a layer replaces its tensors.
        twin.layers = [copy.copy(layer) for layer in self.cache.layers]
        return twin

    def fill(self, length: int) -> None:
        """Extend a `DynamicCache` to `length` tokens with random keys and values."""
        for layer in _plain_layers(self.cache):
            shape = (*layer.keys.shape[:2], length - layer.keys.shape[2], layer.keys.shape[3])
            layer.keys = torch.cat((layer.keys, layer.keys.new_empty(shape).normal_()), 2)
            layer.values = torch.cat((layer.values, layer.values.new_empty(shape).normal_()), 2)
        self.seen = length

    def held(self) -> dict[str, int]:
        """Return bytes of keys and values, and the counters of the memory so far."""
        total = held(self.cache)
        figures = {"device_kv_bytes": total.device_bytes, "host_kv_bytes": total.host_bytes}
        if not isinstance(self.cache, MemoryCache):
            return figures
        counts = ("index_bytes", "blocks", "hits", "misses", "loads", "evictions")
        return figures | {name: getattr(total, name) for name in counts}


def _plain_layers(cache: DynamicCache) -> list[Any]:
    return [layer for layer in cache.layers if isinstance(layer, DynamicLayer)]


def split_name(name: str) -> tuple[str, str]:
    """Return the attention type and the kernel of a name such as `inf-llm:triton`.

    Raises:
        InfLLMError: the type or the kernel is not known.
    """
    kind, _, kernel = name.partition(":")
    if kind not in TYPES:
        raise InfLLMError(f"--types: {kind!r} is not measured here; {accepted(kind, TYPES)}")
    if kernel and kind == "origin":
        raise InfLLMError(f"--types: {name!r}: origin is not patched and takes no kernel")
    known = ("auto", *KERNEL)
    if kernel and kernel not in known:
        raise InfLLMError(f"--types: {name!r} names no kernel; {accepted(kernel, known)}")
    return kind, kernel or "auto"


def settings_of(name: str, chosen: Preset) -> WindowSettings | None:
    """Return the attention settings of a subject's name; None for the unpatched model."""
    kind, kernel = split_name(name)
    if kind == "origin":
        return None
    settings: WindowSettings = chosen.memory if kind == "inf-llm" else chosen.window
    return dataclasses.replace(settings, kernel=kernel)


def make_subject(name: str, model: PreTrainedModel, chosen: Preset) -> Subject:
    """Return a subject whose model is a copy of `model` that shares its weights."""
    settings = settings_of(name, chosen)
    twin = _twin(model)
    if settings is None:
        return Subject(name, twin, chosen.origin_prefill, chosen.origin_decode)
    patch(twin, settings)
    slow = settings.kernel == "reference"
    limit = chosen.slow_limit if slow else max(chosen.lengths)
    return Subject(name, twin, limit, limit)


def _twin(model: PreTrainedModel) -> PreTrainedModel:
    tensors = [*model.parameters(), *model.buffers()]
    shared: dict[int, Any] = {id(tensor): tensor for tensor in tensors}
    return copy.deepcopy(model, shared)
