"""The state that a patch stores on a model's modules, and a record of the running forward pass.

The state is stored on every module that the patch works through: the decoder, its attention modules
and its rotary modules. So a module that was put in later is recognised: it has no such state.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle
from transformers.cache_utils import Cache

from inf_llm.attention.base import running
from inf_llm.errors import UnsupportedInputError
from inf_llm.hf.cache import PatchCache
from inf_llm.hf.cache_layer import AttentionFactory
from inf_llm.hf.rotary import rotary_places
from inf_llm.settings import OriginSettings

_STATE = "_inf_llm"
AGAIN = "call inf_llm.unpatch(model) first, change the model, and patch again"


@dataclass(eq=False)
class Patched:
    """A patch of a decoder, with all that is needed to run it and to undo it.

    Attributes:
        settings: the attention settings in force.
        factories: the factory of the attention object, for each layer index; empty where full
            attention stays.
        before: name of the attention implementation that the model had, if the patch set another.
        checked: number of layers whose attention was compared with the model's own.
        hooks: handles of the hooks on the model's modules.
        rotary: the parent module of each rotary module, and the name in it.
    """

    settings: OriginSettings
    factories: dict[int, AttentionFactory] = field(default_factory=dict)
    before: str | None = None
    checked: int = 0
    hooks: list[RemovableHandle] = field(default_factory=list)
    rotary: list[tuple[nn.Module, str]] = field(default_factory=list)

    def hook_rotary(self, decoder: nn.Module, hook: Callable[..., Any], **options: bool) -> None:
        """Register a forward hook on every rotary module."""
        self.rotary = rotary_places(decoder)
        for module in {parent.get_submodule(name): None for parent, name in self.rotary}:
            self.hooks.append(module.register_forward_hook(hook, **options))
            keep_state(self, module)

    def check_rotary(self) -> None:
        """Check that the rotary modules are those that have the hooks.

        Raises:
            UnsupportedInputError: a rotary module was replaced after the patch.
        """
        for parent, name in self.rotary:
            module = getattr(parent, name, None)
            if not isinstance(module, nn.Module) or state_of(module) is not self:
                raise UnsupportedInputError(
                    f"the {name} of this {type(parent).__name__} was changed after inf_llm.patch, "
                    f"so the patch does not move its positions: {AGAIN}"
                )


@dataclass(frozen=True)
class Feed:
    """One forward pass of a decoder.

    Attributes:
        state: the patch that the decoder runs under.
        cache: the cache that the pass feeds, or None.
        around: the forward pass that this one runs inside, or None.
        fed: layers whose attention was computed so far.
    """

    state: Patched
    cache: Cache | None
    around: Feed | None
    fed: set[int] = field(default_factory=set)


def state_of(module: nn.Module) -> Patched | None:
    """Return the state that `patch` stored on a module, or None if it is not patched."""
    return module.__dict__.get(_STATE)


def keep_state(state: Patched, *modules: nn.Module) -> None:
    """Store a patch's state on modules that the patch works through."""
    for module in modules:
        module.__dict__[_STATE] = state


def forget_state(decoder: nn.Module) -> None:
    """Remove the state that `keep_state` stored."""
    for module in decoder.modules():
        module.__dict__.pop(_STATE, None)


def begin_feed(state: Patched, cache: Cache | None) -> None:
    """Record that a decoder's forward pass begins; `end_feed` records its end."""
    now = running.get()
    running.set(replace(now, feed=Feed(state, cache, now.feed)))
    if isinstance(cache, PatchCache):
        cache.feeding = True


@torch.compiler.disable
def end_feed(decoder: nn.Module, args: Any, output: Any) -> None:
    """Record the end of a forward pass: a hook of the decoder, which runs after an error too."""
    now = running.get()
    if now.feed is not None and now.feed.state is state_of(decoder):  # otherwise no pass began
        running.set(replace(now, feed=now.feed.around))
        if isinstance(now.feed.cache, PatchCache):
            now.feed.cache.feeding = False
