"""The rules to compare, and caches that read by each rule under one patch of the model.

A rule is an attention type with its settings. The model is patched once, with full attention. A
cache for another rule has that rule's attention objects in its layers; they get the same queries,
keys and values as if the model were patched with that rule.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from inf_llm.attention.base import LayerAttention
from inf_llm.attention.inf_llm import InfLLMAttention
from inf_llm.attention.origin import OriginAttention
from inf_llm.attention.window import ChunkedAttention, StreamLMAttention, WindowAttention
from inf_llm.errors import SettingsError
from inf_llm.fidelity.oracle import OracleAttention
from inf_llm.fidelity.tee import Tee
from inf_llm.hf.cache import AttentionFactories, MemoryCache, install
from inf_llm.hf.cache_layer import AttentionFactory
from inf_llm.hf.patch import factories_for, new_cache, patch
from inf_llm.settings import (
    InfLLMSettings,
    OriginSettings,
    StreamLMSettings,
    WindowSettings,
    to_plain,
)

FULL, WINDOW, ORACLE = "full", "window", "oracle"
_ENDLESS = 1 << 30
"""A window longer than any text."""


@dataclass(frozen=True)
class Reader:
    """A rule that reads contexts and answers questions.

    Attributes:
        name: name of the rule in tables and rows.
        settings: settings of its attention type.
        oracle: whether blocks are chosen by their true mass instead of the settings' search.
    """

    name: str
    settings: WindowSettings
    oracle: bool = False

    def __post_init__(self) -> None:
        if self.oracle and not isinstance(self.settings, InfLLMSettings):
            raise SettingsError(
                f"an oracle chooses blocks, and type {self.settings.type!r} has none: give it "
                "settings of type 'inf-llm'"
            )

    @property
    def recalls(self) -> bool:
        """Whether the rule selects blocks, which can be compared with those of the oracle."""
        return isinstance(self.settings, InfLLMSettings) and not self.oracle

    @property
    def prompt_alone(self) -> bool:
        """Whether the last prompt token is an execution block of its own."""
        return bool(getattr(self.settings, "split_last", True))

    def record(self) -> dict[str, Any]:
        """Return the settings in plain types."""
        return {
            "type": ORACLE if self.oracle else self.settings.type,
            **to_plain(self.settings),
        }


def baselines(first: Reader) -> tuple[Reader, Reader]:
    """Return two readers: full attention, and only the sinks and the window of `first`."""
    s = first.settings
    full = StreamLMSettings(n_init=0, n_local=_ENDLESS, kernel=s.kernel, fattn=s.fattn)
    names = ("base", "distance_scale", "scaling", "fattn", "kernel", "native_window")
    shared = {name: getattr(s, name) for name in (*names, "n_init", "n_local")}
    return Reader(FULL, full), Reader(WINDOW, StreamLMSettings(**shared))


class CacheFactory:
    """A model under one patch, which makes empty caches for every reader.

    Args:
        model: an unpatched model; the constructor patches it, and it stays patched.
        readers: the rules; full attention, as `baselines` gives it, comes first.

    Raises:
        UnsupportedModelError: the model cannot be patched.
        SettingsError: two readers have the same name, or the readers' kernels differ.
    """

    def __init__(self, model: Any, readers: Sequence[Reader]) -> None:
        self.model = model
        self.readers = {reader.name: reader for reader in readers}
        _check(readers)
        self._makers = {reader.name: _makers(model, reader) for reader in readers}
        patch(model, readers[0].settings)

    def cache(self, name: str) -> MemoryCache:
        """Return an empty cache that reads by one rule."""
        return self._cache(self._makers[name])

    def joint_cache(self, names: Sequence[str]) -> MemoryCache:
        """Return an empty cache that reads by the first rule and fills the memories of all."""
        layers = self._makers[names[0]]
        joint: AttentionFactories = {
            index: functools.partial(_tee, {name: self._makers[name][index] for name in names})
            for index in layers
        }
        return self._cache(joint)

    def _cache(self, factories: AttentionFactories) -> MemoryCache:
        cache = new_cache(self.model)
        install(cache.layers, factories)
        return cache


def _check(readers: Sequence[Reader]) -> None:
    names = [reader.name for reader in readers]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise SettingsError(f"two rules are called {twice!r}: each is compared once")
    kernels = {reader.settings.kernel_asked for reader in readers}
    if len(kernels) > 1:
        raise SettingsError(
            f"the rules ask for kernels {', '.join(sorted(kernels))}: one kernel computes for all "
            "of them, so name the same one",
            "kernel",
        )


def _makers(model: Any, reader: Reader) -> AttentionFactories:
    """Return, per layer, a function that makes the layer's attention for a reader."""
    made = factories_for(model, reader.settings)
    if reader.name == FULL:
        return {index: functools.partial(_turned, make, _full) for index, make in made.items()}
    if reader.oracle:
        return {index: functools.partial(_turned, make, _oracle) for index, make in made.items()}
    return made


def _turned(
    make: AttentionFactory, turn: Callable[[LayerAttention], LayerAttention]
) -> LayerAttention:
    return turn(make())


def _full(made: LayerAttention) -> LayerAttention:
    """Replace an endless window by full attention; windows that the model itself has stay."""
    endless = isinstance(made, StreamLMAttention)
    return OriginAttention(made.rope, OriginSettings()) if endless else made


def _oracle(made: LayerAttention) -> LayerAttention:
    if not isinstance(made, InfLLMAttention):
        return made
    return OracleAttention(made.rope, made.settings)


def _tee(factories: Mapping[str, AttentionFactory]) -> LayerAttention:
    """Return a tee, or the model's own window attention if all readers use it in this layer."""
    members = {name: make() for name, make in factories.items()}
    first = next(iter(members.values()))
    kinds = (WindowAttention, ChunkedAttention)
    alike = all(type(member) is type(first) for member in members.values())
    return first if type(first) in kinds and alike else Tee(members)
