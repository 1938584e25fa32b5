"""Tasks that need more than one place of the text: variable tracking, common and frequent words.

The recipes are RULER's (Hsieh et al., 2024): chains of assignments hidden in noise; a numbered
list in which ten words occur more often; a coded text whose word frequencies follow a zeta
distribution. The wording is our own and can be replaced.
"""

from __future__ import annotations

import math
import random
import string
from dataclasses import dataclass, field

from inf_llm.needles import words
from inf_llm.needles.base import Draft, Family
from inf_llm.needles.haystack import haystack_of, insert


@dataclass(frozen=True)
class Frame:
    """The sentences around a task. Fields: {query}, {n}."""

    before: str
    question: str
    lead: str


@dataclass(frozen=True)
class VariableTracking(Family):
    """Chains ``VAR A = 12345``, ``VAR B = VAR A``, ... in noise; find all with a value.

    The first assignment stands at the requested depth, the others at random places after it, in
    order. One solved example with shorter names comes first, as in the published recipe.
    """

    chains: int = 1
    hops: int = 4
    frame: Frame = field(
        default=Frame(
            before="Variables are set in the text below; keep track of their values.\n\n",
            question="\nQuestion: Which variables hold the value {query}?",
            lead=" Answer: The value {query} is held by {n} variables, namely:",
        )
    )

    def compose(
        self, rng: random.Random, units: int, depth: float, haystack: str | None, length: int
    ) -> Draft:
        solved = self._task(rng, units=90, depth=0.1, letters=3, haystack=None)
        task = self._task(rng, units, depth, letters=5, haystack=haystack)
        example = f"{solved.context}{solved.question} {' '.join(solved.answers)}\n\n"
        return Draft(example + task.context, task.question, task.answers)

    def _task(
        self, rng: random.Random, units: int, depth: float, letters: int, haystack: str | None
    ) -> Draft:
        names = words.letters(rng, self.chains * (self.hops + 1), letters)
        values = [words.number(rng, 5) for _ in range(self.chains)]
        placed: list[tuple[float, str]] = []
        for chain, value in enumerate(values):
            held = names[chain * (self.hops + 1) : (chain + 1) * (self.hops + 1)]
            sources = [value, *(f"VAR {name}" for name in held[:-1])]
            first = depth if chain == 0 else rng.random()
            places = [first, *sorted(rng.uniform(first, 1) for _ in held[1:])]
            lines = [f"VAR {n} = {s}." for n, s in zip(held, sources, strict=True)]
            placed += zip(places, lines, strict=True)
        fill = {"query": values[0], "n": self.hops + 1}
        document = insert(haystack_of(haystack).take(0, units), placed).rstrip()
        return Draft(
            self.frame.before.format(**fill) + document,
            self.frame.question.format(**fill) + self.frame.lead.format(**fill),
            tuple(names[: self.hops + 1]),
        )


@dataclass(frozen=True)
class CommonWords(Family):
    """A shuffled, numbered list; ten words occur 30 times and the others 3 times.

    Below 4,096 tokens they occur 6 times and once, and the solved example is smaller, as published.
    The requested depth is ignored.
    """

    common: int = 10
    frame: Frame = field(
        default=Frame(
            before="A numbered list of words follows. Some words come back more often; "
            "remember those.\n",
            question="\nQuestion: Which {n} words come most often in the list?",
            lead=" Answer: The {n} words that come most often are:",
        )
    )

    @property
    def least(self) -> int:
        return self.common + 1

    def compose(
        self, rng: random.Random, units: int, depth: float, haystack: str | None, length: int
    ) -> Draft:
        short = length < 4096
        solved = self._task(rng, *((20, 3, 1) if short else (40, 10, 3)))
        task = self._task(rng, units, *((6, 1) if short else (30, 3)))
        shown = " ".join(f"{i}. {word}" for i, word in enumerate(solved.answers, 1))
        example = f"{solved.context}{solved.question} {shown}\n"
        return Draft(example + task.context, task.question, task.answers)

    def _task(self, rng: random.Random, units: int, often: int, seldom: int) -> Draft:
        chosen = words.words(rng, units)
        common, rest = chosen[: self.common], chosen[self.common :]
        listed = common * often + rest * seldom
        rng.shuffle(listed)
        numbered = " ".join(f"{i}. {word}" for i, word in enumerate(listed, 1))
        fill = {"query": "", "n": self.common}
        return Draft(
            self.frame.before.format(**fill) + numbered,
            self.frame.question.format(**fill) + self.frame.lead.format(**fill),
            tuple(common),
        )


@dataclass(frozen=True)
class FrequentWords(Family):
    """Coded words of six letters; the frequency of the k-th is proportional to ``k ** -alpha``.

    The most frequent word is written ``...`` and is noise; the next three are the answer. The
    requested depth is ignored.
    """

    alpha: float = 2.0
    letters: int = 6
    frame: Frame = field(
        default=Frame(
            before="Below is a text in coded words. Keep count of how often each is said. ",
            question="\nQuestion: Leave the dots aside. "
            "Which three coded words are said most often?",
            lead=" Answer: The three coded words that are said most often are:",
        )
    )

    @property
    def least(self) -> int:
        return 120  # enough for the fourth word to occur: 120 / (zeta(2) * 16) > 4

    def compose(
        self, rng: random.Random, units: int, depth: float, haystack: str | None, length: int
    ) -> Draft:
        vocabulary = words.letters(rng, max(8, length // 50), self.letters, string.ascii_lowercase)
        answers = tuple(vocabulary[1:4])
        vocabulary[0] = "..."
        drawn = []
        for k, word in enumerate(vocabulary, 1):
            drawn += [word] * int(units * k**-self.alpha / _zeta(self.alpha))
        rng.shuffle(drawn)
        fill = {"query": "", "n": 3}
        return Draft(
            self.frame.before.format(**fill) + " ".join(drawn),
            self.frame.question.format(**fill) + self.frame.lead.format(**fill),
            answers,
        )


def _zeta(alpha: float, terms: int = 1000) -> float:
    """Return Riemann's zeta function, from its first terms and the integral of the tail."""
    head = math.fsum(k**-alpha for k in range(1, terms))
    return head + terms ** (1 - alpha) / (alpha - 1) + terms**-alpha / 2


VT = VariableTracking("vt", rule="contains_all", max_new_tokens=30)
CWE = CommonWords("cwe", rule="contains_all", max_new_tokens=120)
FWE = FrequentWords("fwe", rule="contains_all", max_new_tokens=50)
