"""What fits, what does not, and the nearest settings that do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from inf_llm.config import RunConfig
from inf_llm.errors import InfLLMError
from inf_llm.hf.outline import Outline
from inf_llm.plan.bytes import Plan, make_plan
from inf_llm.settings import InfLLMSettings, WindowSettings, make_settings
from inf_llm.units import MOST_TOKENS, size
from inf_llm.variants import CODEC

_LEAST_WINDOW = 256


@dataclass(frozen=True)
class Room:
    """Memory there is; None where that is not known.

    Attributes:
        device: bytes on a device with memory of its own.
        host: bytes on the host.
    """

    device: int | None
    host: int | None

    def with_more(self, count: int, apart: bool) -> Room:
        """The same with so many bytes more, of what is there already."""
        if apart:
            return Room(None if self.device is None else self.device + count, self.host)
        return Room(self.device, None if self.host is None else self.host + count)

    def lacks(self, planned: Plan) -> str | None:
        """What does not fit, with both figures; None where all fits, or nothing is known."""
        pairs = ("device", planned.device, self.device), ("host", planned.host, self.host)
        short = [
            f"{size(needed)} are needed on the {place}, which has {size(has)}"
            for place, needed, has in pairs
            if has is not None and needed > has
        ]
        return "; ".join(short) or None


@dataclass(frozen=True)
class Change:
    """Settings that fit.

    Attributes:
        keys: dotted, as a configuration says them, with their values.
        plan: what they give.
    """

    keys: dict[str, Any]
    plan: Plan

    def words(self) -> str:
        """As overrides of a command."""
        return " ".join(f"{key}={value}" for key, value in self.keys.items())

    def yaml(self) -> list[str]:
        """Lines for a configuration."""
        inside = {k.removeprefix("model."): v for k, v in self.keys.items() if "." in k}
        lines = [f"{key}: {value}" for key, value in self.keys.items() if "." not in key]
        return [
            *(["model:"] if inside else []),
            *(f"  {k}: {v}" for k, v in inside.items()),
            *lines,
        ]


def codecs(model: Outline, config: RunConfig, tokens: int, apart: bool) -> Iterator[Change]:
    """A plan for every other codec that needs no options, where blocks are kept."""
    settings = config.attention
    if not isinstance(settings, InfLLMSettings):
        return
    for name in CODEC:
        if name == settings.codec.name:
            continue
        found = _changed(model, config, tokens, apart, {"model.codec": name})
        if found is not None:
            yield found


def nearest(model: Outline, config: RunConfig, tokens: int, room: Room) -> list[Change]:
    """Settings near those of a configuration that fit, each by itself; the last is a shorter text.

    Raises:
        UnsupportedModelError: a layer does not say what it holds.
    """
    apart, found = room.device is not None, []
    for tries in _tries(config):
        for keys in tries:
            change = _changed(model, config, tokens, apart, keys)
            if change is not None and room.lacks(change.plan) is None:
                found.append(change)
                break
    length = longest(model, config, room)
    if length:
        shorter = make_plan(model, config, length, apart)
        found.append(Change({"max_len": length, "truncation": "middle"}, shorter))
    return found


def _tries(config: RunConfig) -> Iterator[list[dict[str, Any]]]:
    """Kinds of changes, of each the smaller before the larger."""
    settings = config.attention
    if not isinstance(settings, WindowSettings):
        yield [{"model.type": "inf-llm"}]
    if isinstance(settings, InfLLMSettings):
        yield [{"model.codec": name} for name in CODEC if name != settings.codec.name]
    if config.model.dtype in ("auto", "float32"):
        yield [{"model.dtype": "bfloat16"}]
    if isinstance(settings, InfLLMSettings):
        yield [_smaller(settings, power) for power in range(1, 12)]


def _smaller(settings: InfLLMSettings, power: int) -> dict[str, Any]:
    """A window and a device cache of a half, a quarter, ..., and what must not exceed them."""
    window = max(min(_LEAST_WINDOW, settings.n_local), settings.n_local >> power)
    cached = max(1, settings.max_cached_block >> power)
    return {
        "model.n_local": window,
        "model.exc_block_size": min(settings.exc_block_size, window),
        "model.max_cached_block": cached,
        "model.topk": min(settings.topk, cached),
    }


def _changed(
    model: Outline, config: RunConfig, tokens: int, apart: bool, keys: dict[str, Any]
) -> Change | None:
    """A plan with other settings; None where they are not allowed."""
    own = {key.removeprefix("model."): value for key, value in keys.items()}
    try:
        kind, dtype = own.pop("type", None), own.pop("dtype", None)
        attention = make_settings(kind) if kind else replace(config.attention, **own)
        chosen = config.model if dtype is None else replace(config.model, dtype=dtype)
        other = replace(config, attention=attention, model=chosen)
        return Change(keys, make_plan(model, other, tokens, apart))
    except InfLLMError:
        return None


def longest(model: Outline, config: RunConfig, room: Room) -> int:
    """The longest text that fits, to about one in a hundred; 0 where none does.

    Raises:
        UnsupportedModelError: a layer does not say what it holds.
    """
    apart = room.device is not None

    def fits(length: int) -> bool:
        return room.lacks(make_plan(model, config, length, apart)) is None

    low, high = 0, MOST_TOKENS
    if fits(high):
        return high
    while high - low > max(1, low // 100):
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
