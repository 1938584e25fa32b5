"""Other rotary positions for a model that keeps its own full attention (NTK, PI, YaRN)."""

from __future__ import annotations

from typing import Any

from torch import nn

from inf_llm.hf.hooks import Patched
from inf_llm.hf.probe import probe
from inf_llm.hf.rotary import RotaryCall, like, rotary_modules
from inf_llm.rope import Rope, exact_device
from inf_llm.scaling import rescale

_ROPES = "_inf_llm_ropes"


def rescale_positions(decoder: nn.Module, state: Patched) -> None:
    """Let every rotary module answer by the settings' base and scaling, in its own layout."""
    for fact in probe(decoder).values():
        if fact.call is not None:
            ropes = fact.call.module.__dict__.setdefault(_ROPES, {})
            ropes[fact.call.asked] = rescale(fact.rope, state.settings)
    for module in rotary_modules(decoder):
        state.hooks.append(module.register_forward_hook(_rescaled, with_kwargs=True))


def forget_ropes(decoder: nn.Module) -> None:
    """Take away what `rescale_positions` left on the rotary modules."""
    for module in rotary_modules(decoder):
        module.__dict__.pop(_ROPES, None)


def _rescaled(module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
    """A rotary module's table, by the rope that it was given."""
    ropes: dict[Any, Rope] = module.__dict__.get(_ROPES, {})
    rope = ropes.get(RotaryCall.from_call(module, args, kwargs).asked)
    if rope is None:
        return output
    positions = kwargs["position_ids"] if "position_ids" in kwargs else args[1]
    exact = exact_device(positions.device)
    angles = positions.to(exact).double()[..., None] * rope.frequencies.abs().to(exact)
    cos, sin = angles.cos() * rope.amplitude, angles.sin() * rope.amplitude
    return like(output, cos.float().to(positions.device), sin.float().to(positions.device))
