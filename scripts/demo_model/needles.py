"""Facts to hide in a text, and the questions that ask for them.

A family draws one `Needle`: the statement to hide, a question, a lead (the beginning of the
answering sentence, which mostly repeats the words before the value in the statement) and the answer
that completes the lead. A needle is *keyed* if its statement names the key of the value, so that
several can stand in one text.
"""

from __future__ import annotations

import random
import string
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass

_CITIES = """Amsterdam Athens Bangkok Barcelona Berlin Bogota Boston Brussels Budapest Cairo Chicago
    Copenhagen Dakar Delhi Dublin Edinburgh Geneva Hamburg Hanoi Havana Helsinki Istanbul
    Jakarta Karachi Kyoto Lagos Lima Lisbon London Madrid Manila Melbourne Milan Montreal
    Moscow Munich Nairobi Naples Oslo Paris Prague Quito Riga Rome Santiago Seoul Shanghai
    Sofia Stockholm Sydney Tokyo Toronto Tunis Venice Vienna Warsaw Zurich"""
CITIES = tuple(_CITIES.split())
TITLES = (
    "The pass key is",
    "The passkey is",
    "The secret code is",
    "The password is",
    "The access code is",
)
LONG_TITLES = (
    "The sequence of digits is",
    "The secret number is",
    "The account number is",
    "The serial number is",
)


@dataclass(frozen=True)
class Needle:
    """One fact: `statement` is hidden; `question` and `lead` ask; `answer` and `closing` reply."""

    family: str
    keyed: bool
    statement: str
    question: str
    lead: str
    answer: str
    closing: str = "."


Family = Callable[[random.Random, Sequence[str]], Needle]


def digits(rng: random.Random, low: int, high: int | None = None) -> str:
    """Draw a string of random digits, whose length is from `low` to `high` (default: `low`)."""
    return "".join(rng.choice(string.digits) for _ in range(rng.randint(low, high or low)))


def _name(rng: random.Random, words: Sequence[str]) -> str:
    """Draw a key: one word, a pair of words, a city, or a hexadecimal identifier."""
    kind = rng.random()
    if kind < 0.2:
        return rng.choice(words)
    if kind < 0.6:
        return f"{rng.choice(words)}-{rng.choice(words)}"
    if kind < 0.75:
        return rng.choice(CITIES)
    return "".join(rng.choice("0123456789abcdef") for _ in range(rng.choice((4, 6, 8, 8, 12))))


def _identifier(rng: random.Random) -> str:
    """Draw a random UUID, or its first group."""
    text = str(uuid.UUID(int=rng.getrandbits(128), version=4))
    return text if rng.random() < 0.7 else text[:8]


def _value(rng: random.Random, words: Sequence[str]) -> str:
    """Draw a value: mostly digits, sometimes words or a hexadecimal identifier."""
    kind = rng.random()
    if kind < 0.75:
        return digits(rng, 3, 8)
    if kind < 0.85:
        return " ".join(rng.sample(words, rng.randint(1, 2)))
    return "".join(rng.choice("0123456789abcdef") for _ in range(rng.choice((4, 6, 8, 12))))


def _announced(family: str, title: str, value: str) -> Needle:
    """Make an unkeyed fact, stated twice: `The pass key is 1. Remember it. 1 is the pass key.`"""
    what = title.removeprefix("The ").removesuffix(" is")
    return Needle(
        family=family,
        keyed=False,
        statement=f"{title} {value}. Remember it. {value} is the {what}.",
        question=f"What is the {what}?",
        lead=title,
        answer=f" {value}",
    )


def passkey(rng: random.Random, words: Sequence[str]) -> Needle:
    """Draw a short secret, mostly five digits."""
    size = 5 if rng.random() < 0.7 else rng.randint(3, 8)
    title = TITLES[0] if rng.random() < 0.6 else rng.choice(TITLES)
    return _announced("passkey", title, digits(rng, size))


def _with_runs(rng: random.Random, size: int) -> str:
    """Draw digits of which half repeat a neighbour, so that a copy must follow the position."""
    value = list(digits(rng, size // 2))
    while len(value) < size:
        place = rng.randrange(len(value))
        value.insert(place, value[place])
    return "".join(value)


def number(rng: random.Random, words: Sequence[str]) -> Needle:
    """Draw a long secret, mostly ten digits."""
    size = 10 if rng.random() < 0.7 else rng.randint(8, 14)
    title = LONG_TITLES[0] if rng.random() < 0.6 else rng.choice(LONG_TITLES)
    value = digits(rng, size)
    if rng.random() < 0.5:
        value = _with_runs(rng, size)
    return _announced("number", title, value)


def key_value(rng: random.Random, words: Sequence[str]) -> Needle:
    """Draw a pair, as JSON or in words; the question on a JSON pair may be in words."""
    key, value, form = _name(rng, words), _value(rng, words), rng.random()
    if form < 0.3:
        key, value = (_identifier(rng), _identifier(rng)) if rng.random() < 0.7 else (key, value)
        question = f'Which value does the key "{key}" have?'
        lead = f'The value of "{key}" is "'
        return Needle("kv", True, f'"{key}": "{value}",', question, lead, value, '".')
    if form < 0.45:
        question = f'What is the value of "{key}"?'
        return Needle("kv", True, f'"{key}": "{value}",', question, f'"{key}": "', value, '".')
    if form < 0.55:
        return Needle("kv", True, f"{key}: {value}.", f"What of {key}?", f"{key}:", f" {value}")
    lead = f"The value of {key} is"
    return Needle("kv", True, f"{lead} {value}.", f"What is the value of {key}?", lead, f" {value}")


def magic_number(rng: random.Random, words: Sequence[str]) -> Needle:
    """Draw a number that belongs to a city or a name."""
    key = rng.choice(CITIES) if rng.random() < 0.4 else _name(rng, words)
    value = digits(rng, 4, 7)
    if rng.random() < 0.4:
        kind = rng.choice(("secret", "magic", "special"))
        question = f"Which {kind} numbers of {key} does the text give?"
        lead = f"The {kind} numbers of {key} are"
        statement = f"The {kind} number of {key} is {value}."
        return Needle("magic", True, statement, question, lead, f" {value}")
    title = rng.choice(("The magic number for", "The special number for", "The secret number of"))
    lead = f"{title} {key} is"
    question = f"What is {title[0].lower()}{title[1:]} {key}?"
    return Needle("magic", True, f"{lead} {value}.", question, lead, f" {value}")


def variable(rng: random.Random, words: Sequence[str]) -> Needle:
    """Draw an assignment to a made-up variable."""
    key = "".join(rng.choice(string.ascii_uppercase) for _ in range(rng.randint(3, 5)))
    lead = rng.choice(("VAR {} =", "let {} =", "{} =")).format(key)
    value = digits(rng, 4, 6)
    return Needle("variable", True, f"{lead} {value}.", f"What is {key}?", lead, f" {value}")


def record_line(rng: random.Random, words: Sequence[str]) -> Needle:
    """Draw a line of a register, as in line-retrieval tests."""
    key, value = f"{rng.choice(words)}-{rng.choice(words)}", digits(rng, 2, 5)
    statement = f"line {key}: REGISTER_CONTENT is <{value}>"
    form = rng.random()
    if form < 0.2:
        question = f"Which REGISTER_CONTENT does line {key} have?"
        lead = f"In line {key} the REGISTER_CONTENT is <"
    elif form < 0.4:
        question = f"Tell me what is the <REGISTER_CONTENT> in line {key}? I need the number."
        lead = f"The <REGISTER_CONTENT> in line {key} is <"
    else:
        question = f"Which REGISTER_CONTENT does line {key} have?"
        lead = f"line {key}: REGISTER_CONTENT is <"
    return Needle("line", True, statement, question, lead, value, ">.")


FAMILIES: dict[str, tuple[Family, float]] = {
    "passkey": (passkey, 0.25),
    "number": (number, 0.18),
    "kv": (key_value, 0.27),
    "magic": (magic_number, 0.13),
    "variable": (variable, 0.05),
    "line": (record_line, 0.12),
}


def draw_family(rng: random.Random) -> Family:
    """Draw one family, by its share of the mix."""
    functions, shares = zip(*FAMILIES.values(), strict=True)
    chosen: Family = rng.choices(functions, shares)[0]
    return chosen


def draw_needles(rng: random.Random, words: Sequence[str], count: int) -> list[Needle]:
    """Draw up to `count` needles that differ in their leads.

    Half the time they are all of one family, so that a text has many similar facts.
    """
    one = draw_family(rng) if rng.random() < 0.5 else None
    needles: dict[str, Needle] = {}
    for _ in range(count):
        needle = (one or draw_family(rng))(rng, words)
        needles.setdefault(needle.lead, needle)
    return list(needles.values())


def draw_hard(rng: random.Random, words: Sequence[str], most: int) -> tuple[list[Needle], bool]:
    """Draw needles that need more than neighbouring tokens; return also if they stand together.

    They are one number with runs, for which a copy must follow the position; or up to `most` pairs
    of identifiers or register lines, which differ only in a name some tokens before the value.
    """
    kind = rng.random()
    if kind < 0.35:
        return [_announced("number", LONG_TITLES[0], _with_runs(rng, 10))], False
    family = _identifier_pair if kind < 0.7 else record_line
    needles = [family(rng, words) for _ in range(rng.randint(2, most))]
    return list({needle.lead: needle for needle in needles}.values()), True


def _identifier_pair(rng: random.Random, words: Sequence[str]) -> Needle:
    """Draw a pair of UUIDs; the lead mostly has the form of the statement."""
    key, value = (str(uuid.UUID(int=rng.getrandbits(128), version=4)) for _ in range(2))
    question = f'Which value does the key "{key}" have?'
    lead = f'"{key}": "' if rng.random() < 0.7 else f'The value of "{key}" is "'
    return Needle("kv", True, f'"{key}": "{value}",', question, lead, value, '".')
