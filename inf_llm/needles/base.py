"""Base classes of needle tasks, and the fit of a sample to the requested number of tokens."""

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

# Share of the requested length by which a sample may be shorter: counting a million tokens takes
# seconds, and an exact fit would take ten such counts.
_TOLERANCE = 1 / 2000


@dataclass(frozen=True)
class Draft:
    """A task before its tokens are counted: the document, the question after it, the answers."""

    context: str
    question: str
    answers: tuple[str, ...]

    def __post_init__(self) -> None:
        several = isinstance(self.answers, tuple | list) and len(self.answers) > 0
        # in a plain string, every letter would count as an answer
        message = f"answers = {self.answers!r:.60} is not accepted: give a tuple, as ('red',)"
        require(several, "answers", message)


@dataclass(frozen=True)
class Sample:
    """One question over one document.

    Attributes:
        family: name of the family that made the sample.
        context: the document with its needles, without the question.
        question: the text after the context, up to the beginning of the answer.
        answers: the texts that `rule` looks for in a prediction.
        rule: name of the rule that scores a prediction, a key of `scoring.RULES`.
        length: tokens of `prompt`, without special tokens.
        depth: the requested depth, 0 (start) to 1 (end of the context).
        seed: the seed that the sample was made with.
        max_new_tokens: most tokens of an answer.
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
        """Return the share of the answer that is right, 0 to 1."""
        return score(self.rule, prediction, self.answers)

    def found(self, prediction: str) -> bool:
        """Whether the answer is completely right."""
        return exact_match(self.rule, prediction, self.answers)


@dataclass(frozen=True)
class Family(ABC):
    """A kind of needle task. A variant of it is another object with other fields.

    Attributes:
        name: name of the family in the registry.
        rule: name of the rule that scores its answers.
        max_new_tokens: most tokens of an answer.
    """

    name: str
    rule: str = field(kw_only=True)
    max_new_tokens: int = field(kw_only=True)

    @property
    def least(self) -> int:
        """The smallest number of filler units that `compose` accepts."""
        return 0

    @abstractmethod
    def compose(
        self, rng: random.Random, units: int, depth: float, haystack: str | None, length: int
    ) -> Draft:
        """Make a draft with `units` filler units (words, pairs, lines or documents).

        `length` is the requested number of tokens, for recipes that depend on it.
        """

    def build(
        self,
        tokenizer: Any,
        haystack: str | None = None,
        length: int = 4096,
        depth: float = 0.5,
        seed: int = 0,
    ) -> Sample:
        """Make a sample of at most `length` tokens, shorter by at most one filler unit or 0.05 %.

        Args:
            tokenizer: a tokenizer, or a function that returns the number of tokens of a text.
            haystack: prose that hides the needle; None for noise sentences.
            length: tokens of context and question together.
            depth: place of the needle in the context, 0 to 1.
            seed: seed of the sample; the same seed gives the same sample.

        Raises:
            SettingsError: the length is too short for the task, or the depth out of range.
        """
        if not 0 <= depth <= 1:
            raise SettingsError(f"depth = {depth} is out of range: it is a fraction from 0 to 1")
        count = token_counter(tokenizer)

        def draft(units: int) -> Draft:
            # A fresh generator for each draft: the needle must not change with the size.
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
    """Return a counter of tokens without special ones, from a tokenizer or a counting function."""
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
    """Return the number of units whose token count is at most `target`, and that count.

    The count is less than one unit, or less than one token in two thousand, below `target`.

    Tokens grow almost evenly with units, so an estimate from the rate so far is within a unit
    after two or three counts of the whole length; brackets handle the uneven cases.
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
            more //= 16  # the first words of a text predict the rest badly
        guess = max(guess + more, low + 1)
        if high is not None:
            guess = min(guess, high - 1)
    return low, low_tokens
