"""The rules that are compared, and caches that read by them under one patch.

The model is patched once, with full attention. A cache for another rule has that rule's attention
objects in its layers; they get the same queries, keys and values as under a patch of their own.
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
from inf_llm.hf.cache import Makers, MemoryCache, install
from inf_llm.hf.cache_layer import MakeAttention
from inf_llm.hf.patch import makers_for, new_cache, patch
from inf_llm.settings import (
    InfLLMSettings,
    OriginSettings,
    StreamLMSettings,
    WindowSettings,
    to_plain,
)

FULL, WINDOW, ORACLE = "full", "window", "oracle"
_ENDLESS = 1 << 30
"""A window that no text fills."""


@dataclass(frozen=True)
class Reader:
    """A rule that reads and answers.

    Attributes:
        name: for a person and for the rows.
        settings: of its attention type.
        oracle: blocks are chosen by their true mass instead of the settings' search.
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
        """Whether it has a choice of blocks to compare with the oracle's."""
        return isinstance(self.settings, InfLLMSettings) and not self.oracle

    @property
    def prompt_alone(self) -> bool:
        """Whether the prompt's last token is an execution block of its own."""
        return bool(getattr(self.settings, "split_last", True))

    def record(self) -> dict[str, Any]:
        """Its settings in plain types."""
        return {
            "type": ORACLE if self.oracle else self.settings.type,
            **to_plain(self.settings),
        }


def baselines(first: Reader) -> tuple[Reader, Reader]:
    """Full attention, and the sinks and window of a reader alone."""
    s = first.settings
    full = StreamLMSettings(n_init=0, n_local=_ENDLESS, kernel=s.kernel, fattn=s.fattn)
    names = ("base", "distance_scale", "scaling", "fattn", "kernel", "native_window")
    shared = {name: getattr(s, name) for name in (*names, "n_init", "n_local")}
    return Reader(FULL, full), Reader(WINDOW, StreamLMSettings(**shared))


class Desk:
    """A model under one patch, and empty caches for every reader.

    Args:
        model: a model that is not patched; it is patched here, and stays so.
        readers: full attention first, as `baselines` gives it.

    Raises:
        UnsupportedModelError: the model cannot be patched.
        SettingsError: the readers' names are not all different, or kernels differ.
    """

    def __init__(self, model: Any, readers: Sequence[Reader]) -> None:
        self.model = model
        self.readers = {reader.name: reader for reader in readers}
        _check(readers)
        self._makers = {reader.name: _makers(model, reader) for reader in readers}
        patch(model, readers[0].settings)

    def cache(self, name: str) -> MemoryCache:
        """An empty cache that reads as one reader does."""
        return self._cache(self._makers[name])

    def joint_cache(self, names: Sequence[str]) -> MemoryCache:
        """An empty cache that reads as the first of these and fills the memories of all."""
        layers = self._makers[names[0]]
        joint: Makers = {
            index: functools.partial(_tee, {name: self._makers[name][index] for name in names})
            for index in layers
        }
        return self._cache(joint)

    def _cache(self, makers: Makers) -> MemoryCache:
        cache = new_cache(self.model)
        install(cache.layers, makers)
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


def _makers(model: Any, reader: Reader) -> Makers:
    """What makes each layer's attention for a reader."""
    made = makers_for(model, reader.settings)
    if reader.name == FULL:
        return {index: functools.partial(_turned, make, _full) for index, make in made.items()}
    if reader.oracle:
        return {index: functools.partial(_turned, make, _oracle) for index, make in made.items()}
    return made


def _turned(
    make: MakeAttention, turn: Callable[[LayerAttention], LayerAttention]
) -> LayerAttention:
    return turn(make())


def _full(made: LayerAttention) -> LayerAttention:
    """Full attention in the place of an endless window; windows of the model's own stay."""
    endless = isinstance(made, StreamLMAttention)
    return OriginAttention(made.rope, OriginSettings()) if endless else made


def _oracle(made: LayerAttention) -> LayerAttention:
    if not isinstance(made, InfLLMAttention):
        return made
    return OracleAttention(made.rope, made.settings)


def _tee(makers: Mapping[str, MakeAttention]) -> LayerAttention:
    """A tee, or a window of the model's own where all readers leave the layer at that."""
    members = {name: make() for name, make in makers.items()}
    first = next(iter(members.values()))
    own = (WindowAttention, ChunkedAttention)
    alike = all(type(member) is type(first) for member in members.values())
    return first if type(first) in own and alike else Tee(members)
