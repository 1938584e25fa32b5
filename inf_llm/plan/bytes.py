"""The plan: bytes by place, for a model, its settings and the length of a text."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from inf_llm.config import RunConfig
from inf_llm.hf.outline import Outline
from inf_llm.options import Disk
from inf_llm.plan.held import Feed, Held, held_by_layers
from inf_llm.units import parse_bytes

_ID_BYTES = 8  # of one entry in a list of token ids
PROGRAM = 360 << 20
"""Bytes of a process with all libraries and no model, as measured on Linux without CUDA."""


@dataclass(frozen=True)
class Plan:
    """Bytes of one text in memory.

    Attributes:
        tokens: length of the text.
        dtype: of weights, keys and values.
        apart: whether attention is computed on a device with memory of its own.
        weights: of the model, on the device.
        held: what all layers hold.
        ids: token ids, on the host.
        working: the model's own working memory while it reads, where it computes.
        most_blocks: bytes of blocks that the host takes, where the others are on a disk.
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
        """Bytes of blocks in files."""
        return 0 if self.most_blocks is None else max(0, self.held.blocks - self.most_blocks)

    @property
    def device(self) -> int:
        """Bytes on a device with memory of its own."""
        return self._near if self.apart else 0

    @property
    def host(self) -> int:
        """Bytes in host memory."""
        far = self.held.blocks - self.disk + self.held.host_index + self.held.tables + self.ids
        return far if self.apart else far + self._near

    @property
    def process(self) -> int:
        """Bytes of the whole process in host memory, its libraries included."""
        return self.host + PROGRAM

    @property
    def _near(self) -> int:
        held = self.held.window + self.held.recalled + self.held.index
        return self.weights + held + self.working


def planned_dtype(model: Outline, wanted: str, apart: bool) -> torch.dtype:
    """The format that a model is loaded in, the widest of those that may be chosen.

    `auto` on a CPU times the formats that hold the weights once they are loaded.
    """
    if wanted != "auto":
        found: torch.dtype = getattr(torch, wanted)
        return found
    timed = not apart and model.packed is None and model.dtype.itemsize == 2
    return torch.float32 if timed else model.dtype


def make_plan(model: Outline, config: RunConfig, tokens: int, apart: bool) -> Plan:
    """What a model with the settings of a configuration will hold of a text.

    Args:
        model: from `outline`.
        config: says the settings and the format.
        tokens: length of the text, its answer included.
        apart: whether there is a device with memory of its own.

    Raises:
        UnsupportedModelError: a layer does not say what it holds.
    """
    dtype = planned_dtype(model, config.model.dtype, apart)
    held = held_by_layers(model.layers, config.attention, Feed(tokens, dtype, apart))
    ids, most = _ID_BYTES * tokens, _most_blocks(config)
    weights = weight_bytes(model, config, dtype, apart)
    working = model.activations * min(tokens, config.chunk_size) * dtype.itemsize
    return Plan(tokens, dtype, apart, weights, held, ids, working, most)


def weight_bytes(model: Outline, config: RunConfig, dtype: torch.dtype, apart: bool) -> int:
    """Bytes of the weights, with their copies in int8 where the configuration asks for them."""
    rounded = config.model.weights is not None and not apart
    return model.weights(dtype) + (model.parameters if rounded else 0)


def _most_blocks(config: RunConfig) -> int | None:
    """What the settings allow of blocks in host memory; None for all."""
    tier = getattr(config.attention, "tier", None)
    if tier is None or tier.name != "disk":
        return None
    limit = tier.options.get("host_bytes", Disk.host_bytes)
    return parse_bytes("host_bytes", limit)
