"""Needle in a haystack with keys: one or several keys, values and questions.

The recipe is RULER's (Hsieh et al., 2024); its eight variants are the constants at the end. The
wording is our own and can be replaced: see `Wording`.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Literal

from inf_llm.errors import SettingsError
from inf_llm.needles import words
from inf_llm.needles.base import Draft, Family
from inf_llm.needles.haystack import haystack_of, insert

Kind = Literal["words", "numbers", "uuids"]


@dataclass(frozen=True)
class Wording:
    """The sentences of the task. Fields: {kind} (number or uuid), {key}, {value}, {query}."""

    needle: str = "The secret {kind} of {key} is {value}."
    before: str = "Some secret {kind}s are given in the text below; they will be asked for.\n"
    question: str = "\nWhich secret {kind}s of {query} does the text give?"
    lead: str = " The secret {kind}s of {query} are"


@dataclass(frozen=True)
class KeyedNeedles(Family):
    """Needles that assign values to keys, in prose, in noise, or among other such needles."""

    stack: Literal["noise", "essay", "needles"] = "essay"
    key_kind: Kind = "words"
    value_kind: Kind = "numbers"
    keys: int = 1
    values: int = 1
    queries: int = 1
    wording: Wording = field(default=Wording())

    @property
    def least(self) -> int:
        return 1 if self.stack == "needles" else 0

    def compose(
        self, rng: random.Random, units: int, depth: float, haystack: str | None, length: int
    ) -> Draft:
        n_keys = max(self.keys, self.queries)
        keys = _distinct(rng, self.key_kind, n_keys)
        table = {key: _distinct(rng, self.value_kind, self.values) for key in keys}
        queried = keys[: self.queries]
        needles = [(rng.random(), self._needle(key, v)) for key in table for v in table[key]]
        # The requested depth is the place of the first needle in the question.
        needles[0] = (depth, needles[0][1])
        document = self._document(rng, units, needles, haystack, set(keys))
        answers = tuple(value for key in queried for value in table[key])
        words_for = {"kind": self._kind, "query": _listed(queried)}
        return Draft(
            self.wording.before.format(**words_for) + document,
            self.wording.question.format(**words_for) + self.wording.lead.format(**words_for),
            answers,
        )

    @property
    def _kind(self) -> str:
        return self.value_kind.removesuffix("s")

    def _needle(self, key: str, value: str) -> str:
        return self.wording.needle.format(kind=self._kind, key=key, value=value)

    def _document(
        self,
        rng: random.Random,
        units: int,
        needles: list[tuple[float, str]],
        haystack: str | None,
        taken: set[str],
    ) -> str:
        if self.stack == "needles":
            return insert(self._others(rng, units, taken), needles).rstrip()
        if self.stack == "essay" and haystack is None:
            raise SettingsError(f"{self.name} hides its needles in prose: give a haystack text")
        stack = haystack_of(None if self.stack == "noise" else haystack)
        start = 0 if self.stack == "noise" else stack.start_near(rng.random())
        return insert(stack.take(start, units), needles).rstrip()

    def _others(self, rng: random.Random, n: int, taken: set[str]) -> list[str]:
        """Make `n` needles of other keys, one per line."""
        lines: list[str] = []
        while len(lines) < n:
            key, value = _one(rng, self.key_kind), _one(rng, self.value_kind)
            if key not in taken:
                lines.append(self._needle(key, value) + "\n")
        return lines


def _one(rng: random.Random, kind: Kind) -> str:
    if kind == "words":
        return f"{rng.choice(words.ADJECTIVES)}-{rng.choice(words.NOUNS)}"
    return words.number(rng, 7) if kind == "numbers" else words.random_uuid(rng)


def _distinct(rng: random.Random, kind: Kind, n: int) -> list[str]:
    drawn: dict[str, None] = {}
    while len(drawn) < n:
        drawn[_one(rng, kind)] = None
    return list(drawn)


def _listed(keys: list[str]) -> str:
    return keys[0] if len(keys) == 1 else ", ".join(keys[:-1]) + f", and {keys[-1]}"


def _row(name: str, **fields: object) -> KeyedNeedles:
    return KeyedNeedles(name, rule="contains_all", max_new_tokens=128, **fields)  # type: ignore[arg-type]


SINGLE_1 = _row("niah_single_1", stack="noise")
SINGLE_2 = _row("niah_single_2")
SINGLE_3 = _row("niah_single_3", value_kind="uuids")
MULTIKEY_1 = _row("niah_multikey_1", keys=4)
MULTIKEY_2 = _row("niah_multikey_2", stack="needles")
MULTIKEY_3 = _row("niah_multikey_3", stack="needles", key_kind="uuids", value_kind="uuids")
MULTIVALUE = _row("niah_multivalue", values=4)
MULTIQUERY = _row("niah_multiquery", queries=4)
