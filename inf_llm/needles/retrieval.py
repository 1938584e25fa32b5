"""Passkey, digit string, key-value and line retrieval.

Recipes: passkey from Mohtashami and Jaggi (2023); the digit string and the key-value store as in
InfiniteBench (Zhang et al., 2024); lines as in LongEval (Li et al., 2023). Each task is built at
any length, with the needle at the requested depth.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from inf_llm.needles import words
from inf_llm.needles.base import Draft, Family
from inf_llm.needles.haystack import haystack_of, insert


@dataclass(frozen=True)
class HiddenNumber(Family):
    """One number, stated twice, in a haystack; `thing` is the name of the number in the text."""

    thing: str = "pass key"
    digits: int = 5
    doubled: bool = False

    def compose(
        self, rng: random.Random, units: int, depth: float, haystack: str | None, length: int
    ) -> Draft:
        value = self._value(rng)
        stack = haystack_of(haystack)
        start = stack.start_near(rng.random()) if haystack is not None else 0
        needle = f"The {self.thing} is {value}. Remember it. {value} is the {self.thing}."
        context = insert(stack.take(start, units), [(depth, needle)])
        question = f"\nWhat is the {self.thing}? The {self.thing} is"
        return Draft(context.rstrip(), question, (value,))

    def _value(self, rng: random.Random) -> str:
        """Return random digits; `doubled` makes half of them repeat a neighbour: harder to copy."""
        if not self.doubled:
            return "".join(rng.choices("0123456789", k=self.digits))
        value = rng.choices("0123456789", k=self.digits // 2)
        for _ in range(self.digits - len(value)):
            place = rng.randrange(len(value))
            value.insert(place, value[place])
        return "".join(value)


@dataclass(frozen=True)
class KeyValue(Family):
    """A JSON object of UUID pairs; the question names one key. No haystack is needed."""

    @property
    def least(self) -> int:
        return 1

    def compose(
        self, rng: random.Random, units: int, depth: float, haystack: str | None, length: int
    ) -> Draft:
        key, value = words.random_uuid(rng), words.random_uuid(rng)
        pairs = [(words.random_uuid(rng), words.random_uuid(rng)) for _ in range(units - 1)]
        pairs.insert(round(depth * len(pairs)), (key, value))
        body = ", ".join(f'"{k}": "{v}"' for k, v in pairs)
        question = f'\nWhich value does the key "{key}" have? "{key}": "'
        return Draft(f"{{{body}}}", question, (value,))


@dataclass(frozen=True)
class Lines(Family):
    """Named registers, one per line; the question asks for the content of one of them."""

    @property
    def least(self) -> int:
        return 1

    def compose(
        self, rng: random.Random, units: int, depth: float, haystack: str | None, length: int
    ) -> Draft:
        keys = words.names(rng, units)
        contents = [str(rng.randint(1, 50_000)) for _ in keys]
        index = round(depth * (units - 1))
        body = "".join(
            f"line {key}: REGISTER_CONTENT is <{content}>\n"
            for key, content in zip(keys, contents, strict=True)
        )
        question = (
            f"Which REGISTER_CONTENT does line {keys[index]} have? "
            f"line {keys[index]}: REGISTER_CONTENT is <"
        )
        return Draft(body, question, (contents[index],))


PASSKEY = HiddenNumber("passkey", rule="first_number", max_new_tokens=12)
NUMBER = HiddenNumber(
    "number",
    thing="sequence of digits",
    digits=10,
    doubled=True,
    rule="first_number",
    max_new_tokens=20,
)
KV = KeyValue("kv", rule="has_word", max_new_tokens=80)
LINES = Lines("lines", rule="first_number", max_new_tokens=12)
