"""The memory plan: bytes per place, for a model, its settings and the length of a text."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from inf_llm.config import RunConfig
from inf_llm.hf.outline import Outline
from inf_llm.options import Disk
from inf_llm.plan.held import Feed, Held, held_by_layers
from inf_llm.units import parse_bytes

_ID_BYTES = 8  # per entry in a list of token ids
PROGRAM = 360 << 20
"""Host memory of a process with all libraries and no model, measured on Linux without CUDA."""


@dataclass(frozen=True)
class Plan:
    """Bytes of a model and one text.

    Attributes:
        tokens: length of the text.
        dtype: format of the weights, keys and values.
        apart: whether attention is computed on a device that has its own memory, such as a GPU.
        weights: bytes of the weights, on the device that computes.
        held: bytes of keys, values and indexes, summed over all layers.
        ids: bytes of the token ids, in host memory.
        working: bytes of the activations of one chunk, on the device that computes.
        most_blocks: limit on the bytes of blocks in host memory, if other blocks go to a disk;
            None for no limit.
    """

    tokens: int
    dtype: torch.dtype
    apart: bool
    weights: int
    held: Held
    ids: int
    working: int = 0
    most_blocks: int | None = None

    @property
    def disk(self) -> int:
        """Bytes of blocks on a disk."""
        return 0 if self.most_blocks is None else max(0, self.held.blocks - self.most_blocks)

    @property
    def device(self) -> int:
        """Bytes on a device that has its own memory; 0 without one."""
        return self._near if self.apart else 0

    @property
    def host(self) -> int:
        """Bytes in host memory."""
        far = self.held.blocks - self.disk + self.held.host_index + self.held.tables + self.ids
        return far if self.apart else far + self._near

    @property
    def process(self) -> int:
        """Bytes of the whole process in host memory, including its libraries."""
        return self.host + PROGRAM

    @property
    def _near(self) -> int:
        held = self.held.window + self.held.recalled + self.held.index
        return self.weights + held + self.working


def planned_dtype(model: Outline, wanted: str, apart: bool) -> torch.dtype:
    """Return the format that a model is loaded in, or the widest format that it may get.

    On a CPU, `auto` measures which format is the fastest, and it does so after the weights are
    loaded. A plan therefore counts float32 for 16-bit weights.
    """
    if wanted != "auto":
        dtype: torch.dtype = getattr(torch, wanted)
        return dtype
    timed = not apart and model.packed is None and model.dtype.itemsize == 2
    return torch.float32 if timed else model.dtype


def make_plan(model: Outline, config: RunConfig, tokens: int, apart: bool) -> Plan:
    """Plan the memory of a model and a text, with the settings of a configuration.

    Args:
        model: from `outline`.
        config: configuration with the attention settings and the format of the weights.
        tokens: length of the text, including its answer.
        apart: whether attention is computed on a device that has its own memory.

    Raises:
        UnsupportedModelError: a layer has an attention type that cannot be planned.
    """
    dtype = planned_dtype(model, config.model.dtype, apart)
    held = held_by_layers(model.layers, config.attention, Feed(tokens, dtype, apart))
    ids, most = _ID_BYTES * tokens, _most_blocks(config)
    weights = weight_bytes(model, config, dtype, apart)
    working = model.activations * min(tokens, config.chunk_size) * dtype.itemsize
    return Plan(tokens, dtype, apart, weights, held, ids, working, most)


def weight_bytes(model: Outline, config: RunConfig, dtype: torch.dtype, apart: bool) -> int:
    """Return the bytes of the weights, and of their int8 copies if the configuration sets these.

    Only a CPU has int8 copies.
    """
    rounded = config.model.weights is not None and not apart
    return model.weights(dtype) + (model.parameters if rounded else 0)


def _most_blocks(config: RunConfig) -> int | None:
    """Return the limit on the bytes of blocks in host memory; None for no limit."""
    tier = getattr(config.attention, "tier", None)
    if tier is None or tier.name != "disk":
        return None
    limit = tier.options.get("host_bytes", Disk.host_bytes)
    return parse_bytes("host_bytes", limit)
