"""Find the rotation of each attention layer of a model by observation, and not by the model's name.

A few tokens, spread over the trained length, run twice: with rotary positions switched off, and
with them on. The attention function ignores queries and keys, so both runs have the same hidden
states. The rotation that maps the first run's queries and keys to the second's is the layer's. If
no rotation does, the model is refused with the reason.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from inf_llm.errors import UnsupportedModelError
from inf_llm.hf.decoder import trained_length
from inf_llm.hf.recording import recorded, token_ids
from inf_llm.hf.rotary import RotaryCall, identity_like, rotary_modules
from inf_llm.rope import Rope

_NEAR = (3, 10, 29, 61)
_SHARES = (0.03, 0.11, 0.37, 0.71)
"""Positions of the probed tokens: `_NEAR`, these shares of the trained length, and its last one."""
_UNSAID = 2048  # trained length of a model that does not state it


@dataclass(frozen=True)
class LayerFacts:
    """The observed properties of one attention layer.

    Attributes:
        rope: the layer's rotation.
        window: length of the layer's own sliding window, or None.
        call: the rotary call that gives the layer its table, or None for a layer without positions.
    """

    rope: Rope
    window: int | None
    call: RotaryCall | None


@dataclass
class _Watch:
    """The observations of one run, and the attention function that makes them."""

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
        if not all(bool(part.isfinite().all()) for part in (query, key, value)):
            raise UnsupportedModelError(
                f"layer {module.layer_idx} ({type(module).__name__}) is given numbers that are not "
                f"finite for ordinary tokens: weights are damaged, or too large for {query.dtype}"
            )
        self.calls.append((module, query.detach(), key.detach(), kwargs))
        shared = query.shape[1] // value.shape[1]
        return value.repeat_interleave(shared, 1).transpose(1, 2).contiguous(), None

    def note_inputs(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Record which rotary table an attention module receives, by identity of the tensor."""
        for value in itertools.chain(args, kwargs.values()):
            first = value[0] if isinstance(value, tuple) and value else value
            for table, call in self.tables:
                if first is (table if torch.is_tensor(table) else table[0]):
                    self.source[module] = call


def ruled_length(decoder: Any, sees: int | None) -> int:
    """Return the number of positions that one rotary rule covers: the rule for `sees` tokens.

    A model with two rules (longrope) uses the second for every text that is longer than the limit
    of the first. This package uses one rule for a whole text of any length: the second if a query
    can see more tokens than the limit of the first.

    Args:
        decoder: the module that runs a model's text layers.
        sees: tokens that a query can see; None for no limit.
    """
    config = decoder.config.get_text_config(decoder=True)
    trained = trained_length(decoder) or _UNSAID
    original = getattr(config, "original_max_position_embeddings", None)
    rule = getattr(config, "rope_parameters", None) or {}
    rules = [rule, *(part for part in rule.values() if isinstance(part, dict))]
    longrope = [part for part in rules if part.get("rope_type") == "longrope"]
    first = [part.get("original_max_position_embeddings") or original for part in longrope]
    ends = [int(length) for length in first or [original] if length]
    if longrope and ends and (sees is None or sees > min(ends)):
        return max(int(trained), max(ends) + 1)
    return min([int(trained), *ends])


def probed_positions(length: int) -> tuple[int, ...]:
    """Return the positions of the probed tokens, for a model trained to `length` tokens."""
    spread = [int(share * (length - 1)) for share in _SHARES]
    return tuple(sorted({at for at in (*_NEAR, *spread, length - 1) if 0 <= at < length}))


@torch.no_grad()
def probe(decoder: Any, sees: int | None) -> dict[nn.Module, LayerFacts]:
    """Return the rotation of every module that calls the attention function, with its window.

    Args:
        decoder: the module that runs a model's text layers.
        sees: see `ruled_length`.

    Raises:
        UnsupportedModelError: the model has no rotary positions, does not use transformers'
            attention interface, or rotates in a way that could not be reproduced.
    """
    if not rotary_modules(decoder):
        raise UnsupportedModelError(
            "it has no rotary position embedding, so its keys cannot be moved: a model with RoPE "
            "is needed"
        )
    positions = probed_positions(ruled_length(decoder, sees))
    still = _run(decoder, positions, rotating=False)
    turned = _run(decoder, positions, rotating=True)
    _check_calls(still, turned)
    search = _Search(positions)
    facts = {}
    for (module, *plain, kwargs), (_, *rotated, _) in zip(still.calls, turned.calls, strict=True):
        call = turned.source.get(module, _only_one(turned))
        rope, used = search.find(module, call, plain, rotated)
        facts[module] = LayerFacts(rope, kwargs.get("sliding_window"), used)
    return facts


def _check_calls(*runs: _Watch) -> None:
    """Check that all runs computed attention in the same layers, once in each."""
    first = [call[0] for call in runs[0].calls]
    if not first:
        raise UnsupportedModelError(
            "it computes attention by itself instead of through transformers' AttentionInterface, "
            "so that cannot be replaced"
        )
    if any([call[0] for call in run.calls] != first for run in runs):
        raise UnsupportedModelError("it runs other layers when its positions change")
    layers = [getattr(module, "layer_idx", None) for module in first]
    if len(set(layers)) < len(layers) or None in layers:
        raise UnsupportedModelError(
            "it computes the attention of a layer more than once in one pass, or does not number "
            f"its layers ({layers}), so a layer's memory cannot be kept apart from another's"
        )


def _only_one(watch: _Watch) -> RotaryCall | None:
    calls = {call for _, call in watch.tables}
    return calls.pop() if len(calls) == 1 else None


def _run(decoder: Any, positions: tuple[int, ...], rotating: bool) -> _Watch:
    """Run a few tokens at spread positions, and record the calls of attention."""
    ids = token_ids(decoder, len(positions))
    watch = _Watch()

    def rotary_hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
        table = output if rotating else identity_like(output)
        call = RotaryCall.from_call(module, args, kwargs)
        watch.tables.append((table, dataclasses.replace(call, last=positions[-1])))
        return table

    hooks = [
        module.register_forward_hook(rotary_hook, with_kwargs=True)
        for module in rotary_modules(decoder)
    ]
    hooks += [
        module.register_forward_pre_hook(watch.note_inputs, with_kwargs=True)
        for module in decoder.modules()
        if "attention" in type(module).__name__.lower()
    ]
    try:
        with recorded(decoder, watch, masks=False):
            decoder(input_ids=ids, position_ids=ids.new_tensor([positions]), use_cache=False)
    except UnsupportedModelError:
        raise
    except Exception as error:
        raise UnsupportedModelError(_culprit(decoder, ids, error)) from error
    finally:
        for hook in hooks:
            hook.remove()
    return watch


def _culprit(decoder: Any, ids: Tensor, error: Exception) -> str:
    """Return why a run failed: because of the other attention function, or in the model itself."""
    what = "it cannot run with another attention function and without an attention mask"
    try:
        decoder(input_ids=ids, use_cache=False)
    except Exception as unpatched_error:
        what, error = "it does not run unpatched either", unpatched_error
    return f"{what} ({type(error).__name__}: {error})"


@dataclass
class _Search:
    """A search for the rotation of each layer; layers that rotate alike share one `Rope`.

    Attributes:
        positions: the positions of the tokens in the runs.
        ropes: every rotation that was tried.
    """

    positions: tuple[int, ...]
    ropes: dict[tuple[Any, ...], Rope] = field(default_factory=dict)

    def find(
        self,
        module: nn.Module,
        call: RotaryCall | None,
        plain: list[Tensor],
        rotated: list[Tensor],
    ) -> tuple[Rope, RotaryCall | None]:
        """Return the rotation from the plain (query, key), (B, H, L, D), to the rotated ones."""
        still = self.ropes.setdefault(("none",), Rope.none())
        if self._excess(still, plain, rotated) <= 1:
            return still, None
        where = f"layer {module.layer_idx} ({type(module).__name__})"
        if call is None:
            raise UnsupportedModelError(
                f"{where} takes its table from no single one of the rotary modules"
            )
        best, excess = still, float("inf")
        for rope in self._candidates(call, plain[0]):
            candidate_excess = self._excess(rope, plain, rotated)
            if candidate_excess < excess:
                best, excess = rope, candidate_excess
        if not excess <= 1:
            raise UnsupportedModelError(
                f"{where} applies its rotary positions in a way that cannot be undone (norms or "
                "other operations after the rotation, or frequencies that depend on the length): "
                f"the nearest rotation is off by {excess:.3g} times what rounding explains"
            )
        return self._as_rounded(best, plain, rotated), call

    def _as_rounded(self, rope: Rope, plain: list[Tensor], rotated: list[Tensor]) -> Rope:
        """Return the same rotation, rounding as the model does if that is closer to its output.

        In float32 the difference is not visible, and rounding once is faster.
        """
        if plain[0].dtype in (torch.float32, torch.float64):
            return rope
        key = ("rounds", rope)
        if key not in self.ropes:
            self.ropes[key] = dataclasses.replace(rope, rounds=True)
        choices = (rope, self.ropes[key])
        off = [self._off(choice, plain, rotated) for choice in choices]
        return choices[off[1] < off[0]]

    def _off(self, rope: Rope, plain: list[Tensor], rotated: list[Tensor]) -> float:
        """Return the sum of all differences, with each token at its position."""
        pairs = zip(plain, rotated, strict=True)
        turned = ((rope.rotate_at(x, self._at(x)), wanted) for x, wanted in pairs)
        return sum(float((got.float() - wanted.float()).abs().sum()) for got, wanted in turned)

    def _candidates(self, call: RotaryCall, query: Tensor) -> Iterator[Rope]:
        """Yield every layout to try."""
        frequencies, amplitude = call.frequencies(query.device)
        room = query.shape[-1] - 2 * len(frequencies)
        layouts = itertools.product(sorted({0, room}), (False, True), (1, -1))
        for start, interleaved, sign in layouts:
            key = (call, start, interleaved, sign)
            if key not in self.ropes:
                self.ropes[key] = Rope(sign * frequencies, amplitude, start, interleaved)
            yield self.ropes[key]

    def _excess(self, rope: Rope, plain: list[Tensor], rotated: list[Tensor]) -> float:
        """Return the largest difference, in units of the expected rounding error."""
        pairs = zip(plain, rotated, strict=True)
        return max(self._excess_of(rope, x, wanted) for x, wanted in pairs)

    def _excess_of(self, rope: Rope, x: Tensor, wanted: Tensor) -> float:
        if x.shape != wanted.shape:
            return float("inf")
        x, dtype, at = x.float(), x.dtype, self._at(x)
        off = (rope.rotate_at(x, at) - wanted.float()).abs()
        limit = rope.reach(x) * rounding(dtype, at[:, None]) + torch.finfo(dtype).tiny
        return float((off / limit).nan_to_num(nan=torch.inf).max())

    def _at(self, x: Tensor) -> Tensor:
        """Return the positions of the tokens, on the device of `x`."""
        return torch.tensor(self.positions, device=x.device)


def rounding(dtype: torch.dtype, position: Tensor) -> Tensor:
    """Return the largest relative error of a pair that a model rotates to a position.

    Cosines, sines, two products and a sum are rounded to the layer's dtype; the angle is a product
    of position and frequency in float32.
    """
    return 4 * torch.finfo(dtype).eps + 2.0**-22 * (position + 8)
