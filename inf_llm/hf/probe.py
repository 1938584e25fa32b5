"""Find out how each attention layer of a model rotates, by watching it and not by its name.

Four tokens are run twice, with rotary positions switched off and on, and with an attention function
that ignores queries and keys, so that both runs carry the same hidden states. The rotation that
maps the first run's queries and keys to the second's is the layer's; if none does, the model is
refused with the reason.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

from inf_llm.errors import UnsupportedModelError
from inf_llm.hf.rotary import RotaryCall, identity_like, rotary_modules
from inf_llm.rope import Rope

_NAME = "inf_llm_probe"
_AT = (3, 10, 29, 61)
_TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-6}
_LOOSE = 3e-2  # half precision


@dataclass(frozen=True)
class LayerFacts:
    """What was found out about one attention layer.

    Attributes:
        rope: how it rotates.
        window: length of its own sliding window, or None.
        call: the rotary call it gets its table from, or None for a layer without positions.
    """

    rope: Rope
    window: int | None
    call: RotaryCall | None


@dataclass
class _Watch:
    """One run's observations, and the attention function that makes them."""

    calls: list[tuple[nn.Module, Tensor, Tensor, dict[str, Any]]] = field(default_factory=list)
    tables: list[tuple[Any, RotaryCall]] = field(default_factory=list)
    source: dict[nn.Module, RotaryCall] = field(default_factory=dict)

    def __call__(
        self,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Any = None,
        **kwargs: Any,
    ) -> tuple[Tensor, None]:
        self.calls.append((module, query.detach(), key.detach(), kwargs))
        shared = query.shape[1] // value.shape[1]
        return value.repeat_interleave(shared, 1).transpose(1, 2).contiguous(), None

    def note_inputs(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Remember which rotary table an attention module was given, by identity."""
        for value in itertools.chain(args, kwargs.values()):
            first = value[0] if isinstance(value, tuple) and value else value
            for table, call in self.tables:
                if first is (table if torch.is_tensor(table) else table[0]):
                    self.source[module] = call


@torch.no_grad()
def probe(model: PreTrainedModel) -> dict[nn.Module, LayerFacts]:
    """How every attention module that asks for attention rotates its queries and keys.

    Raises:
        UnsupportedModelError: the model has no rotary positions, does not ask transformers'
            attention interface, or rotates in a way that could not be reproduced.
    """
    name = type(model).__name__
    if not rotary_modules(model):
        raise UnsupportedModelError(
            f"{name} has no rotary position embedding, so its keys cannot be moved: "
            "a model with RoPE is needed"
        )
    still, turned = _run(model, rotating=False), _run(model, rotating=True)
    if not still.calls:
        raise UnsupportedModelError(
            f"{name} computes attention by itself instead of through transformers' "
            "AttentionInterface, so it cannot be replaced"
        )
    facts = {}
    ropes: dict[tuple[Any, ...], Rope] = {}
    for (module, *plain, kwargs), (_, *rotated, _) in zip(still.calls, turned.calls, strict=True):
        call = turned.source.get(module, _only_one(turned))
        rope, used = _find(name, module, call, plain, rotated, ropes)
        facts[module] = LayerFacts(rope, kwargs.get("sliding_window"), used)
    return facts


def _only_one(watch: _Watch) -> RotaryCall | None:
    calls = {call for _, call in watch.tables}
    return calls.pop() if len(calls) == 1 else None


def _run(model: PreTrainedModel, rotating: bool) -> _Watch:
    """Run a few tokens at spread positions and watch."""
    device = next(model.get_input_embeddings().parameters()).device
    vocabulary = model.config.get_text_config().vocab_size
    ids = (torch.arange(5, 5 + len(_AT), device=device) % vocabulary)[None]
    watch = _Watch()
    with _watching(model, watch, rotating):
        try:
            model(input_ids=ids, position_ids=torch.tensor([_AT], device=device), use_cache=False)
        except Exception as error:
            raise UnsupportedModelError(
                f"{type(model).__name__} cannot run with another attention function and without "
                f"an attention mask, so it cannot be patched ({type(error).__name__}: {error})"
            ) from error
    return watch


@contextlib.contextmanager
def _watching(model: PreTrainedModel, watch: _Watch, rotating: bool) -> Iterator[None]:
    def rotary_hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
        table = output if rotating else identity_like(output)
        watch.tables.append((table, RotaryCall.from_call(module, args, kwargs)))
        return table

    hooks = [
        module.register_forward_hook(rotary_hook, with_kwargs=True)
        for module in rotary_modules(model)
    ]
    hooks += [
        module.register_forward_pre_hook(watch.note_inputs, with_kwargs=True)
        for module in model.modules()
        if "attention" in type(module).__name__.lower()
    ]
    before = model.config._attn_implementation
    AttentionInterface.register(_NAME, watch)
    AttentionMaskInterface.register(_NAME, lambda *args, **kwargs: None)
    try:
        model.set_attn_implementation(_NAME)
        if model.config.get_text_config()._attn_implementation != _NAME:
            raise UnsupportedModelError(
                f"{type(model).__name__} computes attention by itself instead of through "
                "transformers' AttentionInterface, so it cannot be replaced"
            )
        yield
    finally:
        for hook in hooks:
            hook.remove()
        model.set_attn_implementation(before)


def _find(
    name: str,
    module: nn.Module,
    call: RotaryCall | None,
    plain: list[Tensor],
    rotated: list[Tensor],
    ropes: dict[tuple[Any, ...], Rope],
) -> tuple[Rope, RotaryCall | None]:
    """The rotation that turns the plain (query, key) into the rotated ones."""
    tolerance = _TOLERANCE.get(plain[0].dtype, _LOOSE) * max(1.0, float(rotated[0].abs().max()))
    if _close(plain, rotated, tolerance / 100):
        return ropes.setdefault(("none",), Rope.none()), None
    if call is None:
        raise UnsupportedModelError(
            f"{name}: cannot tell which of its rotary modules {type(module).__name__} uses"
        )
    for candidate in _candidates(call, plain[0], ropes):
        turned = [_turn_at(candidate, x) for x in plain]
        if _close(turned, rotated, tolerance):
            return candidate, call
    raise UnsupportedModelError(
        f"{name}: the way {type(module).__name__} applies its rotary positions is not one that "
        "can be undone (norms or other operations after the rotation)"
    )


def _candidates(
    call: RotaryCall, query: Tensor, ropes: dict[tuple[Any, ...], Rope]
) -> Iterator[Rope]:
    """Every layout worth trying; equal ones are one object, so that they share their tables."""
    frequencies, amplitude = call.frequencies(query.device)
    room = query.shape[-1] - 2 * len(frequencies)
    for start, interleaved, sign in itertools.product(sorted({0, room}), (False, True), (1, -1)):
        key = (call, start, interleaved, sign)
        if key not in ropes:
            ropes[key] = Rope(sign * frequencies, amplitude, start, interleaved)
        yield ropes[key]


def _turn_at(rope: Rope, x: Tensor) -> Tensor:
    """`x` (B, H, L, D) with token i standing at the i-th probed position."""
    return torch.cat(
        [rope.rotate_to(x[:, :, i : i + 1], position) for i, position in enumerate(_AT)], 2
    )


def _close(got: list[Tensor], wanted: list[Tensor], tolerance: float) -> bool:
    return all(
        a.shape == b.shape and float((a - b).abs().max()) <= tolerance
        for a, b in zip(got, wanted, strict=True)
    )
