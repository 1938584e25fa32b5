"""Seconds per token of reading and of answering, as a function of the length of a text."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any

from inf_llm import user_cache
from inf_llm.config import RunConfig
from inf_llm.hf.outline import Outline
from inf_llm.processor import machine
from inf_llm.user_cache import cached

_KEPT = "pace"  # name of a file in the user's cache folder


@dataclass(frozen=True)
class Point:
    """Seconds per token after a number of tokens.

    Attributes:
        tokens: number of tokens in the memory.
        reading: seconds per token of a prompt.
        answering: seconds per token of an answer.
    """

    tokens: int
    reading: float
    answering: float


@dataclass(frozen=True)
class Pace:
    """Measured speed of a model.

    After the first tokens, the time per token grows linearly with the length of the text: a search
    scores all blocks, and full attention reads all keys.

    Attributes:
        first: number of tokens that fill the sinks, the window and the recalled blocks.
        first_seconds: seconds to read these tokens.
        near: measurement directly after these tokens.
        far: measurement further into the text; `near` if the text is not longer.
        dtype: format of the weights during the measurement, for instance as `auto` chose it.
    """

    first: int
    first_seconds: float
    near: Point
    far: Point
    dtype: str

    def reading(self, tokens: int) -> float:
        """Return the seconds to read a text of `tokens` tokens."""
        rest = tokens - self.first
        if rest <= 0:
            return self.first_seconds * tokens / self.first
        return self.first_seconds + rest * self._at("reading", (self.first + tokens) / 2)

    def answering(self, tokens: int) -> float:
        """Return the seconds per answer token after a text of `tokens` tokens."""
        return self._at("answering", tokens)

    def _at(self, what: str, tokens: float) -> float:
        near, far = getattr(self.near, what), getattr(self.far, what)
        between = self.far.tokens - self.near.tokens
        growth = max(0.0, far - near) / between if between > 0 else 0.0
        seconds: float = near + growth * max(0.0, tokens - self.near.tokens)
        return seconds


def key_of(model: Outline, config: RunConfig) -> str:
    """Return a digest of the weight files, the configuration and the processor or GPU."""
    data = config.to_dict()
    data.pop("max_len"), data.pop("truncation"), data.pop("conv_type"), data.pop("control_tokens")
    facts = [model.files or config.model.path, data, machine()]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def known(model: Outline, config: RunConfig) -> Pace | None:
    """Return the pace that an earlier run measured; None without one."""
    data = cached(_KEPT).get(key_of(model, config))
    try:
        return None if data is None else _read(data)
    except (TypeError, KeyError):  # written by another version
        return None


def keep(model: Outline, config: RunConfig, pace: Pace) -> None:
    """Store a pace in the user's cache folder, if the folder can be written."""
    user_cache.keep(_KEPT, key_of(model, config), asdict(pace))


def _read(data: dict[str, Any]) -> Pace:
    points = {name: Point(**data[name]) for name in ("near", "far")}
    return Pace(**{**data, **points})
