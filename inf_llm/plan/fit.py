"""Comparison of a plan with the available memory, and the nearest settings that fit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from inf_llm.config import RunConfig
from inf_llm.errors import InfLLMError
from inf_llm.hf.outline import Outline
from inf_llm.plan.bytes import Plan, make_plan
from inf_llm.settings import InfLLMSettings, WindowSettings, make_settings
from inf_llm.units import MAX_TOKENS, size
from inf_llm.variants import CODEC

_MIN_WINDOW = 256


@dataclass(frozen=True)
class Room:
    """Available memory; None where the amount is not known.

    Attributes:
        device: bytes on a device that has its own memory.
        host: bytes in host memory.
    """

    device: int | None
    host: int | None

    def with_more(self, count: int, apart: bool) -> Room:
        """Return the room with `count` more bytes, in the memory where attention is computed."""
        if apart:
            return Room(None if self.device is None else self.device + count, self.host)
        return Room(self.device, None if self.host is None else self.host + count)

    def lacks(self, planned: Plan) -> str | None:
        """Describe what does not fit, in needed and available bytes; None if all fits."""
        pairs = ("device", planned.device, self.device), ("host", planned.host, self.host)
        short = [
            f"{size(needed)} are needed on the {place}, which has {size(has)}"
            for place, needed, has in pairs
            if has is not None and needed > has
        ]
        return "; ".join(short) or None


@dataclass(frozen=True)
class Change:
    """Changed settings and their plan.

    Attributes:
        keys: dotted names of settings, as in a configuration, with their values.
        plan: the plan with these settings.
    """

    keys: dict[str, Any]
    plan: Plan

    def words(self) -> str:
        """Return the settings as overrides of a command, KEY=VALUE."""
        return " ".join(f"{key}={value}" for key, value in self.keys.items())

    def yaml(self) -> list[str]:
        """Return the settings as lines of a YAML configuration."""
        inside = {k.removeprefix("model."): v for k, v in self.keys.items() if "." in k}
        lines = [f"{key}: {value}" for key, value in self.keys.items() if "." not in key]
        return [
            *(["model:"] if inside else []),
            *(f"  {k}: {v}" for k, v in inside.items()),
            *lines,
        ]


def codecs(model: Outline, config: RunConfig, tokens: int, apart: bool) -> Iterator[Change]:
    """Yield a plan with each other codec that needs no options, if the attention keeps blocks."""
    settings = config.attention
    if not isinstance(settings, InfLLMSettings):
        return
    for name in CODEC:
        if name == settings.codec.name:
            continue
        change = _changed(model, config, tokens, apart, {"model.codec": name})
        if change is not None:
            yield change


def nearest(model: Outline, config: RunConfig, tokens: int, room: Room) -> list[Change]:
    """Return changes that each make the text fit by themselves; the last one shortens the text.

    Raises:
        UnsupportedModelError: a layer has an attention type that cannot be planned.
    """
    apart, changes = room.device is not None, []
    for tries in _tries(config):
        for keys in tries:
            change = _changed(model, config, tokens, apart, keys)
            if change is not None and room.lacks(change.plan) is None:
                changes.append(change)
                break
    length = longest(model, config, room)
    if length:
        shorter = make_plan(model, config, length, apart)
        changes.append(Change({"max_len": length, "truncation": "middle"}, shorter))
    return changes


def _tries(config: RunConfig) -> Iterator[list[dict[str, Any]]]:
    """Yield kinds of changes; within each kind, smaller changes come first."""
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
    """Return window and device cache divided by 2 ** `power`, and settings that they limit."""
    window = max(min(_MIN_WINDOW, settings.n_local), settings.n_local >> power)
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
    """Return the plan with changed settings; None if these are not accepted."""
    settings = {key.removeprefix("model."): value for key, value in keys.items()}
    try:
        kind, dtype = settings.pop("type", None), settings.pop("dtype", None)
        attention = make_settings(kind) if kind else replace(config.attention, **settings)
        chosen = config.model if dtype is None else replace(config.model, dtype=dtype)
        other = replace(config, attention=attention, model=chosen)
        return Change(keys, make_plan(model, other, tokens, apart))
    except InfLLMError:
        return None


def longest(model: Outline, config: RunConfig, room: Room) -> int:
    """Return the length of the longest text that fits, to about 1 %; 0 if none fits.

    Raises:
        UnsupportedModelError: a layer has an attention type that cannot be planned.
    """
    apart = room.device is not None

    def fits(length: int) -> bool:
        return room.lacks(make_plan(model, config, length, apart)) is None

    low, high = 0, MAX_TOKENS
    if fits(high):
        return high
    while high - low > max(1, low // 100):
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
