"""Sampling parameters of a request: how tokens are chosen and when an answer ends."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from inf_llm.checks import MIN_TEMPERATURE
from inf_llm.serve.errors import bad_value
from inf_llm.serve.values import checked_text, flag, number, shown, whole, wrong

NAMES = (
    *("max_tokens", "min_tokens", "ignore_eos", "stop", "seed"),
    *("temperature", "top_p", "top_k", "min_p", "logit_bias"),
    *("repetition_penalty", "frequency_penalty", "presence_penalty"),
)
"""Parameters that `sampling_of` reads on every route."""
LONGEST_STOP, MAX_STOPS = 200, 32
MAX_BIASES = 1024


@dataclass(frozen=True)
class Sampling:
    """Sampling parameters of one request.

    Attributes:
        max_tokens: most tokens of an answer; None for the server's default.
        temperature: sampling temperature; 0 takes the likeliest token each time.
        top_p: total probability of the likeliest tokens to sample from.
        top_k: number of likeliest tokens to sample from; None for no limit.
        min_p: least probability of a sampled token, as a share of the likeliest token's.
        repetition_penalty: divisor of the logits of tokens that occur in the prompt or the answer;
            negative logits are multiplied by it.
        frequency_penalty, presence_penalty: subtracted from the logits of tokens that occur in the
            answer, once per occurrence and once per token.
        logit_bias: the number to add to the logit of each token id.
        min_tokens: number of tokens before which no end token may end an answer.
        ignore_eos: no end token ends an answer.
        seed: seed of the first answer to a prompt; each further answer adds 1.
        stop: texts that end an answer.
    """

    max_tokens: int | None = None
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logit_bias: dict[int, float] = field(default_factory=dict)
    min_tokens: int = 0
    ignore_eos: bool = False

    def keywords(self, longest: int) -> dict[str, Any]:
        """Return the sampling keywords of `generate` for an answer of at most `longest` tokens."""
        keywords: dict[str, Any] = {}
        if self.temperature:
            keywords |= {"temperature": self.temperature, "top_p": self.top_p}
            keywords |= {"top_k": self.top_k or 0, "min_p": self.min_p or None}
        if self.repetition_penalty != 1:
            keywords["repetition_penalty"] = self.repetition_penalty
        if self.logit_bias:
            keywords["sequence_bias"] = [[[token], bias] for token, bias in self.logit_bias.items()]
        if self.min_tokens:
            keywords["min_new_tokens"] = min(self.min_tokens, longest)
        return keywords

    @property
    def penalizes(self) -> bool:
        """Whether tokens of the answer lower the logits of later ones (frequency, presence)."""
        return self.frequency_penalty != 0 or self.presence_penalty != 0

    def seed_of(self, answer: int) -> int | None:
        """Return the seed of the answer with this number among the answers to its prompt."""
        return None if self.seed is None else (self.seed + answer) % 2**63


def sampling_of(data: dict[str, Any], shortest: int = 1) -> Sampling:
    """Read the sampling parameters from the body of a request.

    Args:
        data: the body.
        shortest: least accepted value of `max_tokens`.

    Raises:
        ApiError: a value is not accepted.
    """
    longest = [
        whole(name, data.get(name), shortest, nothing=(-1,))
        for name in ("max_tokens", "max_completion_tokens")
    ]
    seed = whole("seed", data.get("seed"), -(2**63), 2**63 - 1)
    temperature = number("temperature", data.get("temperature"), 0.0, 0.0, 2.0)
    sampling = Sampling(
        max_tokens=min((value for value in longest if value is not None), default=None),
        temperature=temperature if temperature >= MIN_TEMPERATURE else 0.0,
        top_p=number("top_p", data.get("top_p"), 1.0, 0.0, 1.0),
        top_k=whole("top_k", data.get("top_k"), 1, nothing=(-1, 0)),
        seed=None if seed is None else seed % 2**63,
        stop=_stops(data.get("stop")),
        min_p=number("min_p", data.get("min_p"), 0.0, 0.0, 1.0),
        repetition_penalty=number(
            "repetition_penalty", data.get("repetition_penalty"), 1.0, 0.01, 10.0
        ),
        frequency_penalty=number(
            "frequency_penalty", data.get("frequency_penalty"), 0.0, -2.0, 2.0
        ),
        presence_penalty=number("presence_penalty", data.get("presence_penalty"), 0.0, -2.0, 2.0),
        logit_bias=_biases(data.get("logit_bias")),
        min_tokens=whole("min_tokens", data.get("min_tokens"), 0) or 0,
        ignore_eos=flag(data, "ignore_eos"),
    )
    most = sampling.max_tokens
    if most is not None and sampling.min_tokens > most:
        wanted = f"at most max_tokens, which is {most}"
        raise wrong("min_tokens", sampling.min_tokens, wanted)
    return sampling


def _biases(given: Any) -> dict[int, float]:
    """Parse `logit_bias` by token id; entries of 0 are dropped."""
    wanted = f"an object of at most {MAX_BIASES} token ids and numbers from -100 to 100"
    if given is None or given == []:
        return {}
    if not isinstance(given, dict) or len(given) > MAX_BIASES:
        raise wrong("logit_bias", given, wanted)
    for token, bias in given.items():
        if not re.fullmatch("[0-9]{1,10}", token):
            raise bad_value("logit_bias", f"logit_bias has {shown(token)}: give {wanted}")
        number(f"logit_bias.{token}", bias, 0.0, -100.0, 100.0)
    return {int(token): float(bias) for token, bias in given.items() if bias}


def _stops(stop: Any) -> tuple[str, ...]:
    texts = [] if stop is None else [stop] if isinstance(stop, str) else stop
    wanted = f"a text, or a list of at most {MAX_STOPS}, each of at most {LONGEST_STOP} characters"
    if not isinstance(texts, list) or len(texts) > MAX_STOPS:
        raise wrong("stop", stop, wanted)
    for text in texts:
        if not isinstance(text, str) or len(text) > LONGEST_STOP:
            raise wrong("stop", text, wanted)
    return tuple(checked_text("stop", text) for text in texts if text)
