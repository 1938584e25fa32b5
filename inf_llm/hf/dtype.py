"""The dtype in which a model runs fastest on this processor, by measurement.

With AMX, bfloat16 reads one and a half times as fast as float32; with AVX2 alone it reads five
times more slowly. `dtype: auto` on a CPU therefore times one layer of the loaded model in every
dtype that holds its weights without loss.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

_ROWS = 32  # prompt tokens for each answer token in the measured time
_SECONDS = 0.3  # after this time no measurement is repeated
_GAIN = 1.2  # another dtype must be faster by this factor, so that noise decides little
_NOTE = "_inf_llm_dtype"

_known: dict[tuple[str, int, torch.dtype], dict[torch.dtype, float]] = {}
"""Measured times of this process, so that models compared side by side have one dtype."""


@dataclass(frozen=True)
class DtypeChoice:
    """The measured times, and the dtype that follows from them.

    Attributes:
        dtype: the dtype of the model after the choice.
        seconds: per dtype, the time of one layer for `_ROWS` tokens at once and for one token
            alone, in sum, on one thread.
    """

    dtype: torch.dtype
    seconds: dict[torch.dtype, float]

    def __str__(self) -> str:
        took = {dtype_name(dtype): f"{1e3 * s:.1f} ms" for dtype, s in self.seconds.items()}
        chosen = took.pop(dtype_name(self.dtype))
        others = ", ".join(f"{time} in {other}" for other, time in took.items())
        return f"{dtype_name(self.dtype)} (one layer takes {chosen}, and {others})"


def dtype_name(dtype: torch.dtype) -> str:
    """Return `bfloat16` for `torch.bfloat16`."""
    return str(dtype).removeprefix("torch.")


def dtype_choice(model: PreTrainedModel) -> DtypeChoice | None:
    """Return what `settle_dtype` measured on this model, or None if it measured nothing."""
    return model.__dict__.get(_NOTE)


@torch.no_grad()
def settle_dtype(model: PreTrainedModel) -> PreTrainedModel:
    """Convert a model on a CPU to the dtype in which one layer of it is the fastest.

    The candidates hold the weights without loss: float32 holds those of a bfloat16 or float16
    checkpoint, while a float32 checkpoint stays as it is. GGUF weights have less precision
    than either, so both are candidates. A model stays as it is if it is on another device, has
    weights on disk or packed weights, or is too large for a wider dtype.

    Returns:
        The same model.
    """
    current = _format(model)
    others = [] if current is None else _others(model, current)
    if current is None or not others:
        return model
    checkpoint = (str(model.config.name_or_path), model.num_parameters(), current)
    if checkpoint not in _known:
        _known[checkpoint] = time_formats(model, [current, *others])
    seconds = _known[checkpoint]
    if len(seconds) > 1:
        fastest = min(seconds, key=seconds.__getitem__)
        chosen = current if seconds[current] <= _GAIN * seconds[fastest] else fastest
        _convert(model, current, chosen)
        model.__dict__[_NOTE] = DtypeChoice(chosen, seconds)
    return model


def _format(model: PreTrainedModel) -> torch.dtype | None:
    """Return the dtype that most weights have, or None unless all are floats on the CPU."""
    weights = list(model.parameters())
    if any(w.device.type != "cpu" or not w.is_floating_point() for w in weights):
        return None
    sizes: dict[torch.dtype, int] = {}
    for weight in weights:
        sizes[weight.dtype] = sizes.get(weight.dtype, 0) + weight.numel()
    return max(sizes, key=sizes.__getitem__, default=None)


def _others(model: PreTrainedModel, current: torch.dtype) -> list[torch.dtype]:
    """Return the other dtypes that hold the weights without loss and fit into memory."""
    quantized = getattr(model.config, "quantization_config", None)
    if quantized is not None:
        method = str(getattr(quantized, "quant_method", "")).lower()
        return [torch.bfloat16] if method.endswith("gguf") and current == torch.float32 else []
    if current not in (torch.bfloat16, torch.float16):
        return []
    import psutil  # comes with accelerate

    wider = sum(weight.numel() for weight in model.parameters()) * (4 - current.itemsize)
    return [torch.float32] if wider < 0.8 * psutil.virtual_memory().available else []


def _first_layer(model: PreTrainedModel) -> nn.Module | None:
    """Return the first decoder layer, from the module list that has `num_hidden_layers` entries."""
    count = getattr(model.config.get_text_config(decoder=True), "num_hidden_layers", None)
    decoder = model.get_decoder()  # some models return a head here
    for module in (decoder if isinstance(decoder, PreTrainedModel) else model).modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return module[0]
    return None


def time_formats(model: PreTrainedModel, formats: list[torch.dtype]) -> dict[torch.dtype, float]:
    """Return the seconds that the first layer takes in each dtype; empty if it cannot be measured.

    The measurement uses one thread and its CPU time, and takes the dtypes in turns, so that other
    programs on the machine change little.
    """
    layer = _first_layer(model)
    if layer is None:
        return {}
    with _one_thread():
        inputs = [_inputs(model, layer, rows) for rows in (_ROWS, 1)]
        if None in inputs:
            return {}
        twins = {dtype: copy.deepcopy(layer).to(dtype) for dtype in formats}
        best = {(dtype, at): math.inf for dtype in formats for at in range(len(inputs))}
        started = time.perf_counter()
        while math.inf in best.values() or time.perf_counter() - started < _SECONDS:
            for dtype, at in best:
                args, kwargs = _cast(inputs[at], dtype)
                before = time.thread_time()
                twins[dtype](*args, **kwargs)
                best[dtype, at] = min(best[dtype, at], time.thread_time() - before)
    return {dtype: sum(best[dtype, at] for at in range(len(inputs))) for dtype in formats}


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Reached(Exception):  # noqa: N818 (not an error: it ends a run early)
    """Raised when the layer is reached; holds the arguments of its call."""


def _inputs(model: PreTrainedModel, layer: nn.Module, tokens: int) -> tuple[Any, Any] | None:
    """Return the layer's arguments when the model reads `tokens` tokens; None if not called."""

    def stop(module: nn.Module, args: Any, kwargs: Any) -> None:
        raise _Reached(args, kwargs)

    ids = torch.arange(3, 3 + tokens)[None] % model.config.get_text_config().vocab_size
    hook = layer.register_forward_pre_hook(stop, with_kwargs=True)
    try:
        model(input_ids=ids, use_cache=False)
    except _Reached as reached:
        args, kwargs = reached.args
        return args, kwargs
    finally:
        hook.remove()
    return None


def _cast(given: Any, dtype: torch.dtype) -> Any:
    """Return the arguments with every floating-point tensor cast to `dtype`."""
    if torch.is_tensor(given):
        return given.to(dtype) if given.is_floating_point() else given
    if isinstance(given, tuple | list):
        return type(given)(_cast(part, dtype) for part in given)
    if isinstance(given, dict):
        return {key: _cast(part, dtype) for key, part in given.items()}
    return given


def _convert(model: PreTrainedModel, current: torch.dtype, wanted: torch.dtype) -> None:
    """Convert the weights to another dtype; float32 buffers, such as rotary frequencies, stay."""
    for weight in model.parameters():
        if weight.dtype == current:
            weight.data = weight.data.to(wanted)
    for buffer in model.buffers():
        if buffer.dtype == current and current != torch.float32:
            buffer.data = buffer.data.to(wanted)
    model.config.dtype = wanted
