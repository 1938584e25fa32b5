"""Seconds per token of reading and of answering, as they grow with the length of a text."""

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

_KEPT = "pace"  # file in the user's cache


@dataclass(frozen=True)
class Point:
    """Seconds per token behind so many tokens.

    Attributes:
        tokens: what was read before.
        reading: of a token of a prompt.
        answering: of a token of an answer.
    """

    tokens: int
    reading: float
    answering: float


@dataclass(frozen=True)
class Pace:
    """What was measured. Behind the first tokens, time per token grows by a straight line: a search
    looks at all blocks, full attention at all keys.

    Attributes:
        first: tokens that fill window and recalled blocks.
        first_seconds: in which they were read.
        near: measured behind them.
        far: measured behind more; as `near` where the text was not longer.
        dtype: of the weights, which `auto` chose.
    """

    first: int
    first_seconds: float
    near: Point
    far: Point
    dtype: str

    def reading(self, tokens: int) -> float:
        """Seconds for a text of so many tokens."""
        rest = tokens - self.first
        if rest <= 0:
            return self.first_seconds * tokens / self.first
        return self.first_seconds + rest * self._at("reading", (self.first + tokens) / 2)

    def answering(self, tokens: int) -> float:
        """Seconds for a token of an answer behind a text."""
        return self._at("answering", tokens)

    def _at(self, what: str, tokens: float) -> float:
        near, far = getattr(self.near, what), getattr(self.far, what)
        between = self.far.tokens - self.near.tokens
        growth = max(0.0, far - near) / between if between > 0 else 0.0
        found: float = near + growth * max(0.0, tokens - self.near.tokens)
        return found


def key_of(model: Outline, config: RunConfig) -> str:
    """What a pace belongs to: the weights' files, the configuration, and what computes."""
    said = config.to_dict()
    said.pop("max_len"), said.pop("truncation"), said.pop("conv_type"), said.pop("control_tokens")
    facts = [model.files or config.model.path, said, machine()]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def known(model: Outline, config: RunConfig) -> Pace | None:
    """What was measured before, if it was."""
    found = cached(_KEPT).get(key_of(model, config))
    try:
        return None if found is None else _read(found)
    except (TypeError, KeyError):  # of another version
        return None


def keep(model: Outline, config: RunConfig, pace: Pace) -> None:
    """Keep what was measured, where the cache folder can be written."""
    user_cache.keep(_KEPT, key_of(model, config), asdict(pace))


def _read(found: dict[str, Any]) -> Pace:
    points = {name: Point(**found[name]) for name in ("near", "far")}
    return Pace(**{**found, **points})
