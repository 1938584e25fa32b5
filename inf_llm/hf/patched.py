"""What a patch leaves on the modules of a model, and what it notes of the call that runs.

Whatever a patch works through carries its state: the decoder, its attention modules, its rotary
modules. So a module that was put in later differs from those that were there.
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
from inf_llm.hf.cache_layer import MakeAttention
from inf_llm.hf.rotary import rotary_places
from inf_llm.settings import OriginSettings

_STATE = "_inf_llm"
AGAIN = "call inf_llm.unpatch(model) first, change the model, and patch again"


@dataclass(eq=False)
class Patched:
    """What was done to a decoder, so that it can work and be undone.

    Attributes:
        settings: the attention settings in force.
        makers: per layer index, what makes its attention object; empty where full attention stays.
        before: name of the attention implementation that the model had.
        checked: layers whose attention was compared with the model's own.
        hooks: handles of the hooks on its modules.
        rotary: where its rotary modules are: the module around each, and its name there.
    """

    settings: OriginSettings
    makers: dict[int, MakeAttention] = field(default_factory=dict)
    before: str | None = None
    checked: int = 0
    hooks: list[RemovableHandle] = field(default_factory=list)
    rotary: list[tuple[nn.Module, str]] = field(default_factory=list)

    def hook_rotary(self, decoder: nn.Module, hook: Callable[..., Any], **options: bool) -> None:
        """Put a forward hook on every rotary module."""
        self.rotary = rotary_places(decoder)
        for module in {parent.get_submodule(name): None for parent, name in self.rotary}:
            self.hooks.append(module.register_forward_hook(hook, **options))
            keep_state(self, module)

    def check_rotary(self) -> None:
        """See that the rotary modules are those that have the hooks.

        Raises:
            UnsupportedInputError: another one was put in since.
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
    """One forward call of a decoder.

    Attributes:
        state: the patch that it runs under.
        cache: what it feeds, or None.
        around: the call around it.
        fed: layers whose attention was computed so far.
    """

    state: Patched
    cache: Cache | None
    around: Feed | None
    fed: set[int] = field(default_factory=set)


def state_of(module: nn.Module) -> Patched | None:
    """What `patch` left on a module, or None if it is not patched."""
    return module.__dict__.get(_STATE)


def keep_state(state: Patched, *modules: nn.Module) -> None:
    """Leave a patch's state on modules that it works through."""
    for module in modules:
        module.__dict__[_STATE] = state


def forget_state(decoder: nn.Module) -> None:
    """Take away what `keep_state` left."""
    for module in decoder.modules():
        module.__dict__.pop(_STATE, None)


def begin_feed(state: Patched, cache: Cache | None) -> None:
    """Note that a decoder's forward call begins; `end_feed` notes its end."""
    now = running.get()
    running.set(replace(now, feed=Feed(state, cache, now.feed)))
    if isinstance(cache, PatchCache):
        cache.feeding = True


@torch.compiler.disable
def end_feed(decoder: nn.Module, args: Any, output: Any) -> None:
    """A forward hook of the decoder, to be called always."""
    now = running.get()
    if now.feed is not None and now.feed.state is state_of(decoder):  # else the call was refused
        running.set(replace(now, feed=now.feed.around))
        if isinstance(now.feed.cache, PatchCache):
            now.feed.cache.feeding = False
