"""How answers are made: the parameters of a request that choose tokens and end answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from inf_llm.checks import LEAST_TEMPERATURE
from inf_llm.serve.values import checked_text, number, whole, wrong

NAMES = ("max_tokens", "temperature", "top_p", "top_k", "seed", "stop")
"""Parameters that `sampling_of` reads, of every route."""
LONGEST_STOP, MOST_STOPS = 200, 4


@dataclass(frozen=True)
class Sampling:
    """How the answers of a request are made.

    Attributes:
        max_tokens: length of an answer; None for the server's default.
        temperature: 0 takes the likeliest token each time.
        top_p: share of the likeliest tokens that are drawn from.
        top_k: number of them, or None.
        seed: of the draws of the first answer to a prompt; the next one has the next number.
        stop: texts that end an answer.
    """

    max_tokens: int | None = None
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()

    def asked(self) -> dict[str, Any]:
        """The same as keywords for `generate`, but for the length and the stop texts."""
        if not self.temperature:
            return {}
        return {
            "temperature": self.temperature,
            "top_p": self.top_p,
            "top_k": self.top_k or 0,
        }

    def seed_of(self, answer: int) -> int | None:
        """The seed of an answer, by its number among those to its prompt."""
        return None if self.seed is None else (self.seed + answer) % 2**63


def sampling_of(data: dict[str, Any]) -> Sampling:
    """What the body of a request says of it.

    Raises:
        ApiError: a value is not accepted.
    """
    longest = [
        whole(name, data.get(name), 1, nothing=(-1,))
        for name in ("max_tokens", "max_completion_tokens")
    ]
    seed = whole("seed", data.get("seed"), -(2**63), 2**63 - 1)
    temperature = number("temperature", data.get("temperature"), 0.0, 0.0, 2.0)
    return Sampling(
        max_tokens=min((value for value in longest if value is not None), default=None),
        temperature=temperature if temperature >= LEAST_TEMPERATURE else 0.0,
        top_p=number("top_p", data.get("top_p"), 1.0, 0.0, 1.0),
        top_k=whole("top_k", data.get("top_k"), 1, nothing=(-1, 0)),
        seed=None if seed is None else seed % 2**63,
        stop=_stops(data.get("stop")),
    )


def _stops(stop: Any) -> tuple[str, ...]:
    texts = [] if stop is None else [stop] if isinstance(stop, str) else stop
    wanted = f"a text, or a list of at most {MOST_STOPS}, each of at most {LONGEST_STOP} characters"
    if not isinstance(texts, list) or len(texts) > MOST_STOPS:
        raise wrong("stop", stop, wanted)
    for text in texts:
        if not isinstance(text, str) or len(text) > LONGEST_STOP:
            raise wrong("stop", text, wanted)
    return tuple(checked_text("stop", text) for text in texts if text)
