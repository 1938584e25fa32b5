"""Check that the replacement of a model's attention computes what the model's own attention does.

The model's text layers run once, unpatched, after a simulated past that is longer than their own
windows. In every layer, the queries, keys and values that the model computed and rotated go to two
functions: the model's own attention, and the memory that would replace it. Both compute in float32.
So neither the depth of a layer nor the model's own rounding affects the comparison, and a wrong
scale, soft cap, sink, window or mask is visible. `inf_llm.hf.probe` checks the rotation of a layer.
No model family is exempt.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.cache_utils import DynamicCache

from inf_llm.attention.base import LayerAttention
from inf_llm.errors import InfLLMError, UnsupportedModelError
from inf_llm.hf.cache import MemoryCache, adopt
from inf_llm.hf.cache_layer import AttentionFactories, AttentionFactory, PassingLayer
from inf_llm.hf.decoder import with_cache
from inf_llm.hf.hooks import make_rule
from inf_llm.hf.recording import recorded, token_ids

_NEW = 16
_PARTS = (9, 7)
_PAST = 256
_LONGEST_PAST = 4096
_LONGEST_MASK = 1 << 20
_EXACT = 2e-5
_PLAIN_IMPLEMENTATIONS = ("eager", "sdpa", "flash_attention", "flex_attention", "paged", "/")


@dataclass(frozen=True)
class Expected:
    """The replacement of one layer's attention, for the check.

    Attributes:
        make: makes the layer's attention object: full attention in place of the configured type,
            without rotation.
        window: length of the window that the layer keeps, or None.
        chunk: length of the chunks that the layer keeps, or None.
    """

    make: AttentionFactory
    window: int | None = None
    chunk: int | None = None


@torch.no_grad()
def verify(decoder: Any, layers: dict[nn.Module, Expected], kernel: str = "auto") -> int:
    """Compare every layer's attention with its replacement.

    Args:
        decoder: the module that runs the model's text layers, not patched.
        layers: the replacement for each attention module.
        kernel: the kernel of the patch, compared too, in the layer's own dtype.

    Returns:
        The number of compared layers.

    Raises:
        UnsupportedModelError: a layer differs, and the message gives its number and the figures; or
            the model cannot run with a simulated past.
    """
    check = _Check(decoder.config._attn_implementation, layers, kernel, _past_length(layers))
    cache = DynamicCache(config=decoder.config.get_text_config(decoder=True))
    held: list[Any] = cache.layers
    for module in layers:
        index: Any = module.layer_idx
        held += [None] * (index + 1 - len(held))
        held[index] = _Past(check.past)
    with recorded(decoder, check, masks=True):
        _must_run(decoder, token_ids(decoder, _NEW), cache)
    return len(check.compared)


def try_memory(decoder: Any, factories: AttentionFactories) -> None:
    """Feed a patched decoder two chunks, and check that each layer's memory receives each once.

    Raises:
        UnsupportedModelError: the decoder fails, or a layer's memory receives more or fewer keys
            than there are tokens.
    """
    cache = adopt(DynamicCache(config=decoder.config.get_text_config(decoder=True)), factories)
    for part in token_ids(decoder, _NEW).split(_PARTS, 1):
        _must_run(decoder, part, cache)
    for index, layer in zip(sorted(factories), cache.memories, strict=True):
        if layer.get_seq_length() != _NEW:
            raise UnsupportedModelError(
                f"layer {index} was given {layer.get_seq_length()} keys for {_NEW} tokens"
            )


def _must_run(decoder: Any, ids: Tensor, cache: Any) -> None:
    try:
        with torch.no_grad():
            decoder(input_ids=ids, **with_cache(decoder, cache))
    except InfLLMError as error:
        raise UnsupportedModelError(str(error)) from error
    except Exception as error:
        kind = "a memory" if isinstance(cache, MemoryCache) else "a cache of another kind"
        raise UnsupportedModelError(
            f"it fails with {kind} in place of its own ({type(error).__name__}: {error})"
        ) from error


def _past_length(layers: dict[nn.Module, Expected]) -> int:
    """Return the length of the simulated past, in whole chunks.

    The past is as long as every window, but for windows of more than `_LONGEST_MASK` tokens.
    """
    windows = [each.window for each in layers.values() if each.window is not None]
    longest = max((w for w in windows if w <= _LONGEST_MASK), default=0)
    chunk = max((each.chunk or 1 for each in layers.values()), default=1)
    return -(-max(_PAST, longest) // chunk) * chunk


class _Past(PassingLayer):
    """A cache layer that reports `length` tokens and holds none."""

    def __init__(self, length: int) -> None:
        super().__init__()
        self.length = length

    def get_seq_length(self, *args: Any) -> int:
        """Return the length of the simulated past."""
        return self.length


@dataclass
class _Check:
    """The attention function of the run: compares a layer, and returns the model's own output."""

    implementation: str
    layers: dict[nn.Module, Expected]
    kernel: str
    past: int
    compared: list[int] = field(default_factory=list)

    def __call__(
        self,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Any = None,
        **kwargs: Any,
    ) -> tuple[Tensor, None]:
        attend = _own_attention(module, self.implementation)
        layer = _Layer(module, self.layers[module], attend, {**kwargs, "dropout": 0.0})
        mask = layer.visible(attention_mask, query.shape[2], self.past)
        exact = [x.float() for x in (query, key, value)]
        output = layer.reference(exact, mask[..., self.past :])
        layer.compare("", exact, output, "auto", _EXACT)
        if query.dtype != torch.float32:  # the kernel of the patch, in the layer's own dtype
            rounding = 4 * torch.finfo(query.dtype).eps
            layer.compare(f" in {query.dtype}", [query, key, value], output, self.kernel, rounding)
        for factor in layer.factors(exact):
            layer.compare_far(exact, factor, mask)
        self.compared.append(layer.index)
        return output.transpose(1, 2).to(query.dtype).contiguous(), None


def _own_attention(module: nn.Module, implementation: str) -> Callable[..., Any]:
    """Return the model's own attention: its module's eager function, or one that a user set."""
    if any(part in implementation for part in _PLAIN_IMPLEMENTATIONS):
        file = sys.modules[type(module).__module__]
        eager = getattr(file, "eager_attention_forward", None)
        return eager if eager is not None else AttentionInterface()["sdpa"]
    return AttentionInterface()[implementation]


@dataclass(frozen=True)
class _Layer:
    """One attention call of the model, and its replacement."""

    module: nn.Module
    expected: Expected
    attend: Callable[..., Any]
    arguments: dict[str, Any]

    @property
    def index(self) -> int:
        """Number of the layer."""
        return int(self.module.layer_idx)  # type: ignore[arg-type]

    @property
    def name(self) -> str:
        """Name of the layer, for an error message."""
        return f"layer {self.index} ({type(self.module).__name__})"

    def visible(self, mask: Any, new: int, past: int) -> Tensor:
        """Return the model's mask (B, 1 or H, L, past + L) if it hides what the replacement hides.

        Raises:
            UnsupportedModelError: the mask has another form, adds a bias, or hides other tokens.
        """
        if not torch.is_tensor(mask) or mask.dim() != 4 or mask.shape[2:] != (new, past + new):
            shape = tuple(mask.shape) if torch.is_tensor(mask) else type(mask).__name__
            raise UnsupportedModelError(
                f"{self.name} is given a mask of its own ({shape}) instead of (queries x keys)"
            )
        seen = mask if mask.dtype == torch.bool else mask == 0
        if mask.is_floating_point() and bool((~seen & (mask > torch.finfo(mask.dtype).min)).any()):
            raise UnsupportedModelError(f"{self.name} adds a bias of its own to its scores")
        wrong = (seen != self._plain_mask(new, past, mask.device)).nonzero()
        if len(wrong):
            *_, query, key = wrong[0].tolist()
            does = "sees" if bool(seen[tuple(wrong[0])]) else "does not see"
            raise UnsupportedModelError(
                f"{self.name}: token {past + query} {does} token {key}, against the rule that was "
                f"found (window {self.expected.window}, chunk {self.expected.chunk})"
            )
        return mask

    def _plain_mask(self, new: int, past: int, device: torch.device) -> Tensor:
        key = torch.arange(past + new, device=device)
        query = key[past:, None]
        seen = key <= query
        if self.expected.window is not None:
            seen &= query - key < self.expected.window
        if self.expected.chunk is not None:
            seen &= query // self.expected.chunk == key // self.expected.chunk
        return seen

    def reference(self, parts: list[Tensor], mask: Tensor) -> Tensor:
        """Return the model's own attention (B, H, L, Dv) in float32."""
        mask = mask if mask.dtype == torch.bool else mask.float()
        return self.attend(self.module, *parts, mask, **self.arguments)[0].transpose(1, 2)

    def compare(
        self, how: str, parts: list[Tensor], wanted: Tensor, kernel: str, rounding: float
    ) -> None:
        """Compare every head on the new tokens alone."""
        attention = self.expected.make()
        rule = make_rule(parts[0], kernel, **self.arguments)
        pieces = zip(*(x.split(_PARTS, 2) for x in parts), strict=True)
        got = torch.cat([attention.attend(q, k, v, rule) for q, k, v in pieces], 2)
        size = parts[2].float().abs().amax(2, keepdim=True)  # (B, G, 1, Dv)
        size = size.repeat_interleave(wanted.shape[1] // size.shape[1], 1)
        self._refuse_if_apart(how, got, wanted, size, rounding + self._score_rounding(*parts[:2]))

    def factors(self, parts: list[Tensor]) -> list[float]:
        """Return factors on the queries for `compare_far`: scores of spread 1, and beyond the cap.

        With the first factor every key has enough weight that its absence is detected. With the
        second a wrong soft cap is detected.
        """
        scores = self._scores(*parts[:2])
        spread, largest = float(scores.std()), float(scores.abs().max())
        cap = self.arguments.get("softcap")
        factors = [1 / spread if spread > 0 else 1.0]
        return [*factors, 2 * cap / largest] if cap and largest > 0 else factors

    def compare_far(self, parts: list[Tensor], factor: float, mask: Tensor) -> None:
        """Compare one head after a past that is longer than the layer's own window."""
        q, k, v = parts[0] * factor, parts[1], parts[2]
        past = self._past(mask.shape[-1] - q.shape[2])
        draw = torch.Generator("cpu").manual_seed(self.index)
        pick = torch.randint(k.shape[2], (past,), generator=draw, device="cpu").to(k.device)
        size = v.abs().amax(2, keepdim=True)
        sign = (
            torch.randint(2, (*v.shape[:2], past, v.shape[3]), generator=draw, device="cpu") * 2 - 1
        )
        k = torch.cat((k[:, :, pick], k), 2)
        v = torch.cat((sign.to(v) * size, v), 2)
        wanted = self.reference([q, k, v], mask[..., mask.shape[-1] - k.shape[2] :])
        shared = q.shape[1] // k.shape[1]
        group = self.index % k.shape[1]
        head = group * shared
        ours = q[:, head : head + 1], k[:, group : group + 1], v[:, group : group + 1]
        got = self._fed(ours, pick, head)
        limit = _EXACT + self._score_rounding(ours[0], ours[1])
        size = size[:, group : group + 1]
        how = f" behind {past} tokens"
        self._refuse_if_apart(how, got, wanted[:, head : head + 1], size, limit)

    def _past(self, pretended: int) -> int:
        """Return how many tokens of the simulated past to feed; 0 where a chunk is too long."""
        chunk, window = self.expected.chunk, self.expected.window
        if chunk is not None:
            return pretended if pretended <= _LONGEST_PAST else 0
        return min(pretended, window if window and window <= _LONGEST_PAST else _PAST)

    def _fed(self, parts: tuple[Tensor, ...], pick: Tensor, head: int) -> Tensor:
        """Return one head's attention of the new queries, fed in two parts after the past."""
        q, k, v = parts
        past = k.shape[2] - q.shape[2]
        sinks = self.arguments.get("s_aux")
        head_sinks = {"s_aux": None if sinks is None else sinks[head : head + 1]}
        rule = make_rule(q, "auto", **{**self.arguments, **head_sinks})
        attention: LayerAttention = self.expected.make()
        if past:
            attention.attend(q[:, :, pick], k[:, :, :past], v[:, :, :past], rule)
        lengths = [past, *_PARTS]
        ks, vs = k.split(lengths, 2)[1:], v.split(lengths, 2)[1:]
        pieces = zip(q.split(_PARTS, 2), ks, vs, strict=True)
        return torch.cat([attention.attend(*piece, rule) for piece in pieces], 2)

    def _scores(self, q: Tensor, k: Tensor) -> Tensor:
        scale = self.arguments.get("scaling") or q.shape[-1] ** -0.5
        k = k.repeat_interleave(q.shape[1] // k.shape[1], 1)
        return torch.matmul(q.float(), k.float().transpose(2, 3)) * scale

    def _score_rounding(self, q: Tensor, k: Tensor) -> float:
        """Return the largest rounding error of the float32 scores of these queries and keys."""
        scale = self.arguments.get("scaling") or q.shape[-1] ** -0.5
        return 2.0**-22 * scale * float(q.float().norm(dim=-1).max() * k.float().norm(dim=-1).max())

    def _refuse_if_apart(
        self, how: str, got: Tensor, wanted: Tensor, size: Tensor, limit: float
    ) -> None:
        """Raise an error if `got` and `wanted` differ by more than `limit`, as a share of `size`.

        `size` is the largest absolute value per head and channel.
        """
        apart = (got.float() - wanted).abs() / size.float().clamp(min=1e-30)
        worst = float(apart.nan_to_num(nan=torch.inf).max())
        if not worst <= limit:
            raise UnsupportedModelError(
                f"{self.name}: attention{how} differs from the model's own by {worst:.2g} of the "
                f"values' size, where rounding explains {limit:.2g}: it does something that is "
                "not reproduced"
            )
