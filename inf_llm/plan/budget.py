"""What texts take of a budget of memory, in a model that is loaded."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from inf_llm.config import DTYPES, RunConfig
from inf_llm.errors import InfLLMError
from inf_llm.hf.decoder import device_of
from inf_llm.hf.dtype import dtype_name
from inf_llm.hf.outline import Outline, layer_shapes
from inf_llm.plan.bytes import make_plan
from inf_llm.settings import WindowSettings
from inf_llm.units import MOST_TOKENS


@dataclass(frozen=True)
class TextBytes:
    """How many bytes a text takes, by its length.

    Args:
        shapes: the model's layers, without weights.
        config: its settings, and the format of keys and values.
        apart: whether attention is computed on a device with memory of its own.
    """

    shapes: Outline
    config: RunConfig
    apart: bool

    def of(self, tokens: int) -> int:
        """Bytes on host and device of a memory that has read so many tokens, and of one fork.

        A fork has a window of its own. What is on a disk is left out.
        """
        plan = make_plan(self.shapes, self.config, tokens, self.apart)
        forked = isinstance(self.config.attention, WindowSettings)
        return plan.host + plan.device + (plan.held.window + plan.ids if forked else 0)

    def longest(self, budget: int) -> int:
        """The most tokens that take no more than a budget."""
        low, high = 0, MOST_TOKENS
        while low < high:
            middle = (low + high + 1) // 2
            if self.of(middle) <= budget:
                low = middle
            else:
                high = middle - 1
        return low


def text_bytes(model: Any, config: RunConfig) -> TextBytes | None:
    """What texts take in a model; None where one of its layers does not say what it holds.

    Args:
        model: loaded, patched or not.
        config: of the run.
    """
    try:
        about = copy.deepcopy(model.config)
        about._attn_implementation = "eager"
        with torch.device("meta"):
            shapes = layer_shapes(AutoModelForCausalLM.from_config(about))
    except Exception:  # what cannot be built without weights cannot be planned either
        return None
    name = dtype_name(model.dtype)
    if name in DTYPES:
        config = replace(config, model=replace(config.model, dtype=name))
    found = TextBytes(Outline(shapes, 0, model.dtype), config, apart=device_of(model).type != "cpu")
    try:
        found.of(1)
    except InfLLMError:
        return None
    return found
