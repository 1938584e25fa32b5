"""The share of a memory budget that texts take, in a loaded model."""

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
from inf_llm.units import MAX_TOKENS


@dataclass(frozen=True)
class TextBytes:
    """Bytes of a text in memory, as a function of its length.

    Args:
        shapes: the layers of the model, without weights.
        config: the settings of the model, and the format of keys and values.
        apart: whether attention is computed on a device that has its own memory.
    """

    shapes: Outline
    config: RunConfig
    apart: bool

    def of(self, tokens: int) -> int:
        """Return the bytes, on host and device, of a memory with `tokens` tokens and one fork.

        A fork has its own window. Blocks on a disk are not counted.
        """
        plan = make_plan(self.shapes, self.config, tokens, self.apart)
        forked = isinstance(self.config.attention, WindowSettings)
        return plan.host + plan.device + (plan.held.window + plan.ids if forked else 0)

    def longest(self, budget: int) -> int:
        """Return the largest number of tokens that takes at most `budget` bytes."""
        low, high = 0, MAX_TOKENS
        while low < high:
            middle = (low + high + 1) // 2
            if self.of(middle) <= budget:
                low = middle
            else:
                high = middle - 1
        return low


def text_bytes(model: Any, config: RunConfig) -> TextBytes | None:
    """Return the bytes of texts in a model; None if one of its layers cannot be planned.

    Args:
        model: the loaded model, patched or not.
        config: the configuration of the run.
    """
    try:
        about = copy.deepcopy(model.config)
        about._attn_implementation = "eager"
        with torch.device("meta"):
            shapes = layer_shapes(AutoModelForCausalLM.from_config(about))
    except Exception:  # a model that cannot be built without weights cannot be planned
        return None
    name = dtype_name(model.dtype)
    if name in DTYPES:
        config = replace(config, model=replace(config.model, dtype=name))
    texts = TextBytes(Outline(shapes, 0, model.dtype), config, apart=device_of(model).type != "cpu")
    try:
        texts.of(1)
    except InfLLMError:
        return None
    return texts
