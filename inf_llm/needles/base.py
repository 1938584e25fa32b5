"""What a needle task is, and how a sample is brought to the asked number of tokens."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from inf_llm.checks import require
from inf_llm.errors import SettingsError
from inf_llm.needles.scoring import exact_match, score

TokenCounter = Callable[[str], int]

# How far under the asked length a sample may end, as a share: measuring a text of a million
# tokens takes seconds, and ten such measurements would be needed to meet it to the token.
_TOLERANCE = 1 / 2000


@dataclass(frozen=True)
class Draft:
    """A task before it is measured: the document, the question behind it, what is right."""

    context: str
    question: str
    answers: tuple[str, ...]

    def __post_init__(self) -> None:
        several = isinstance(self.answers, tuple | list) and len(self.answers) > 0
        # one text would be taken for an answer per letter
        message = f"answers = {self.answers!r:.60} is not accepted: give a tuple, as ('red',)"
        require(several, "answers", message)


@dataclass(frozen=True)
class Sample:
    """One question over one document.

    Attributes:
        family: name of the family that made it.
        context: the document with its needles; the question is not in it.
        question: the text behind the context, up to where the answer begins.
        answers: what must be found.
        rule: how an answer is judged, a row of `scoring.RULES`.
        length: tokens of `prompt`, special tokens not counted.
        depth: the depth that was asked for, 0 (start) to 1 (end of the context).
        seed: the seed it was made with.
        max_new_tokens: how many tokens an answer may take.
    """

    family: str
    context: str
    question: str
    answers: tuple[str, ...]
    rule: str
    length: int
    depth: float
    seed: int
    max_new_tokens: int

    @property
    def prompt(self) -> str:
        """Context and question, as one text."""
        return self.context + self.question

    def score(self, prediction: str) -> float:
        """The share of the answer that is right, 0 to 1."""
        return score(self.rule, prediction, self.answers)

    def found(self, prediction: str) -> bool:
        """Whether the answer is wholly right."""
        return exact_match(self.rule, prediction, self.answers)


@dataclass(frozen=True)
class Family(ABC):
    """A kind of needle task; a variant is one line, an object with other fields.

    Attributes:
        name: the row's name.
        rule: how its answers are judged.
        max_new_tokens: how many tokens an answer may take.
    """

    name: str
    rule: str = field(kw_only=True)
    max_new_tokens: int = field(kw_only=True)

    @property
    def least(self) -> int:
        """The smallest number of filler units that `compose` can do with."""
        return 0

    @abstractmethod
    def compose(
        self, rng: random.Random, units: int, depth: float, haystack: str | None, length: int
    ) -> Draft:
        """A draft with so many filler units (words, pairs, lines, documents).

        `length` is the number of tokens aimed at, for recipes whose make depends on it.
        """

    def build(
        self,
        tokenizer: Any,
        haystack: str | None = None,
        length: int = 4096,
        depth: float = 0.5,
        seed: int = 0,
    ) -> Sample:
        """A sample of at most `length` tokens, short of it by a filler unit or 0.05 % at most.

        Args:
            tokenizer: a tokenizer, or a function from a text to its number of tokens.
            haystack: prose to hide in; noise sentences where it is None.
            length: tokens of context and question together.
            depth: where in the context the needle stands, 0 to 1.
            seed: same seed, same sample.

        Raises:
            SettingsError: the length is too short for the task, or the depth out of range.
        """
        if not 0 <= depth <= 1:
            raise SettingsError(f"depth = {depth} is out of range: it is a fraction from 0 to 1")
        count = token_counter(tokenizer)

        def draft(units: int) -> Draft:
            # A fresh generator each time: the needle must not change with the size.
            rng = random.Random(f"{self.name}/{seed}")
            return self.compose(rng, units, depth, haystack, length)

        def tokens(units: int) -> int:
            made = draft(units)
            return count(made.context + made.question)

        units, size = _fit(tokens, length, self.least, self.name)
        made = draft(units)
        return Sample(
            family=self.name,
            context=made.context,
            question=made.question,
            answers=made.answers,
            rule=self.rule,
            length=size,
            depth=depth,
            seed=seed,
            max_new_tokens=self.max_new_tokens,
        )


def token_counter(tokenizer: Any) -> TokenCounter:
    """A function that counts tokens without special ones, from a tokenizer or such a function."""
    if hasattr(tokenizer, "encode"):
        return lambda text: len(tokenizer.encode(text, add_special_tokens=False))
    if callable(tokenizer):
        return tokenizer
    raise SettingsError(
        f"tokenizer = {type(tokenizer).__name__} cannot count tokens: "
        "give a tokenizer with encode(), or a function from a text to a number"
    )


def _fit(
    tokens: Callable[[int], int], target: int, least: int, name: str, probe: int = 64
) -> tuple[int, int]:
    """Units whose token count is just under `target`, and that count.

    It falls short by less than one unit, or by less than one token in two thousand.

    Tokens grow almost evenly with units, so a guess from the rate so far lands within a unit
    after two or three measurements of the whole length; brackets catch the uneven cases.
    """
    base = tokens(least)
    if base > target:
        raise SettingsError(
            f"length = {target} tokens is too short for {name}: at least {base} are needed"
        )
    low, low_tokens = least, base
    high: int | None = None
    guess = least + probe
    for step in range(40):
        size = tokens(guess)
        rate = max((size - base) / (guess - least), 1e-9)
        if size <= target:
            low, low_tokens = guess, size
        else:
            high = guess
        near = max(rate, target * _TOLERANCE)
        if 0 <= target - size < near or (high is not None and high - low <= 1):
            break
        more = int((target - size) / rate)
        if step == 0 and more > 32 * probe:
            more //= 16  # the first words of a text say little about the rest
        guess = max(guess + more, low + 1)
        if high is not None:
            guess = min(guess, high - 1)
    return low, low_tokens
