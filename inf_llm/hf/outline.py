"""The size of a model and the shape of its layers, found without its weights.

The model is built on torch's meta device, where tensors have shapes but no data. One forward pass
over two tokens runs there, with an attention function that only records its arguments. So no model
family needs code of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM
from transformers.cache_utils import DynamicCache

from inf_llm.config import RunConfig
from inf_llm.errors import UnsupportedModelError, reason
from inf_llm.hf import files
from inf_llm.hf.decoder import decoder_of, device_of, with_cache
from inf_llm.hf.llama_infinite import register
from inf_llm.hf.load import described
from inf_llm.hf.patch import native_chunk
from inf_llm.hf.recording import recorded
from inf_llm.hf.source import find

_FORMATS = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


@dataclass(frozen=True)
class LayerShape:
    """The shape of one attention layer.

    Attributes:
        index: number of the layer in the model.
        heads: query heads, H.
        groups: key heads, G.
        key_width: elements of one key, D.
        value_width: elements of one value, Dv.
        window: length of the sliding window that the layer was trained with, or None.
        chunk: length of the attention chunks that the layer was trained with, or None.
        cached: elements of one token in the model's own cache, which some models compress.
    """

    index: int
    heads: int
    groups: int
    key_width: int
    value_width: int
    window: int | None = None
    chunk: int | None = None
    cached: int = 0

    @property
    def numbers(self) -> int:
        """Elements of the keys and values of one token."""
        return self.groups * (self.key_width + self.value_width)


@dataclass(frozen=True)
class Outline:
    """The size and the layers of a model, without its weights.

    Attributes:
        layers: the layers with attention, in order.
        parameters: elements of all weights; a shared weight counts once.
        dtype: dtype of the checkpoint's weights.
        files: name, size in bytes and modification time of each weight file; empty for a model that
            is not on this computer.
        packed: bytes of weights that stay as they are in the files (quantized), or None.
        activations: elements of one token that exist at once while a chunk is prefilled; see
            `activations`.
    """

    layers: tuple[LayerShape, ...]
    parameters: int
    dtype: torch.dtype
    files: tuple[tuple[str, int, int], ...] = ()
    packed: int | None = None
    activations: int = 0

    def weights(self, dtype: torch.dtype) -> int:
        """Return the bytes of the weights in `dtype`; the size of packed weights is fixed."""
        return self.parameters * dtype.itemsize if self.packed is None else self.packed

    @property
    def file_bytes(self) -> int:
        """Bytes of all weight files."""
        return sum(size for _, size, _ in self.files)


def outline(config: RunConfig) -> Outline:
    """Return the size and the layers of a configuration's model, without reading its weights.

    Raises:
        ConfigError: the model does not exist, its files are damaged, or it is no language model.
        MissingExtraError: its files need a package that is not installed.
        UnsupportedModelError: the model cannot be built or run without data.
    """
    register()
    source = find("path", config.model.path, "model")
    about = described(source)
    quantized = getattr(about, "quantization_config", None) is not None and source.gguf is None
    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(about)
        layers = layer_shapes(model)
    except Exception as error:
        raise UnsupportedModelError(
            f"{source.where}: a {about.model_type!r} model cannot be outlined without its weights "
            f"({reason(error)})"
        ) from error
    weight_files = source.weight_files
    listed = tuple((f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in weight_files)
    return Outline(
        layers,
        sum(weight.numel() for weight in model.parameters()),
        _dtype(about, weight_files),
        listed,
        packed=sum(size for _, size, _ in listed) if quantized and listed else None,
        activations=activations(about),
    )


def activations(about: Any) -> int:
    """Return the elements of one token that exist at once during a forward pass.

    The peak is in a feed-forward layer: the gate, the up projection and their product, for each
    expert that a token is routed to, and about six hidden states (residual, norms, attention and
    its rotation).

    Args:
        about: the model's configuration.
    """
    text = about.get_text_config(decoder=True)
    hidden = int(getattr(text, "hidden_size", 0))
    experts = getattr(text, "num_experts_per_tok", None) or 1
    inner = getattr(text, "moe_intermediate_size", None) or getattr(text, "intermediate_size", None)
    return 6 * hidden + 3 * experts * int(inner or 4 * hidden)


@torch.no_grad()
def layer_shapes(model: Any) -> tuple[LayerShape, ...]:
    """Return the shape of every layer that calls the attention function, for an unpatched model.

    The model may be on the meta device.
    """
    decoder: Any = decoder_of(model)
    if hasattr(model, "set_experts_implementation") and device_of(model).type == "meta":
        model.set_experts_implementation("batched_mm")  # others read which expert is chosen
    found: dict[int, LayerShape] = {}

    def note(
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Any = None,
        **kwargs: Any,
    ) -> tuple[Tensor, None]:
        index, window = int(module.layer_idx), kwargs.get("sliding_window")  # type: ignore[arg-type]
        (rows, heads, length, _), groups, width = query.shape, key.shape[1], value.shape[3]
        chunk = native_chunk(model, module)
        found[index] = LayerShape(index, heads, groups, key.shape[3], width, window, chunk)
        return value.new_empty(rows, length, heads, width), None

    cache = DynamicCache(config=decoder.config.get_text_config(decoder=True))
    ids = torch.zeros(1, 2, dtype=torch.long, device=device_of(decoder))
    with recorded(decoder, note, masks=False):
        decoder(input_ids=ids, **with_cache(decoder, cache))
    return tuple(
        replace(found[index], cached=_numbers(cache.layers[index]) // ids.shape[1])
        for index in sorted(found)
    )


def _numbers(layer: Any) -> int:
    """Return the elements in a layer of the model's own cache; some layers read another one's."""
    keys = getattr(layer, "keys", None)
    return keys.numel() + layer.values.numel() if torch.is_tensor(keys) else 0


def _dtype(about: Any, weight_files: list[Path]) -> torch.dtype:
    """Return the dtype that transformers loads a checkpoint in: the stated one, or its weights'."""
    dtype = getattr(about, "dtype", None)
    if dtype is None and weight_files and weight_files[0].suffix == ".safetensors":
        rows = files.safetensors_head(weight_files[0])[1].values()
        dtype = next((_FORMATS[row["dtype"]] for row in rows if row["dtype"] in _FORMATS), None)
    if isinstance(dtype, str):
        dtype = getattr(torch, dtype)
    return dtype if isinstance(dtype, torch.dtype) else torch.float32
