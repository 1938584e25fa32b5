"""Other rotary positions for a model that keeps its own full attention (NTK, PI, YaRN)."""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers import PreTrainedModel

from inf_llm.hf.hooks import Patched
from inf_llm.hf.probe import probe
from inf_llm.hf.rotary import RotaryCall, like, rotary_modules
from inf_llm.scaling import rescale


def rescale_positions(model: PreTrainedModel, state: Patched) -> None:
    """Let every rotary module answer by the settings' base and scaling, in its own layout."""
    settings = state.settings
    ropes = {
        fact.call: rescale(fact.rope, settings)
        for fact in probe(model).values()
        if fact.call is not None
    }

    def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
        rope = ropes.get(RotaryCall.from_call(module, args, kwargs))
        if rope is None:
            return output
        positions = kwargs["position_ids"] if "position_ids" in kwargs else args[1]
        angles = positions.double()[..., None] * rope.frequencies.abs().to(positions.device)
        cos, sin = angles.cos() * rope.amplitude, angles.sin() * rope.amplitude
        return like(output, cos.float(), sin.float())

    for module in rotary_modules(model):
        state.undo.append(module.register_forward_hook(hook, with_kwargs=True).remove)
