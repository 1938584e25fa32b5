"""Texts of the tasks: facts in prose, passages to copy, people, turns of a dialogue.

Every kind of fact has several wordings, and the seed chooses one of them for a context, so that a
rule is not tuned to one sentence. All wordings, numbers and the order of random draws belong to the
definition of the tasks: a change to any of them must raise `DEFINITION`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from inf_llm.conversation import ASSISTANT, BETWEEN, USER
from inf_llm.needles import words
from inf_llm.needles.haystack import Haystack, insert
from inf_llm.needles.qa import invented

DEFINITION = 1
"""Version of the task definition; rows of different versions are not compared."""
DEEPEST = 0.75
"""Facts stand in this first share of a context, so that they leave the window before its end."""


@dataclass(frozen=True)
class Ask:
    """A question about a draft.

    Attributes:
        question: the text of the user's question.
        lead: the beginning of the answer, which is given.
        answer: the rest of the answer, whose likelihood is measured.
        needle: the passage of the context that holds the answer.
    """

    question: str
    lead: str
    answer: str
    needle: str


@dataclass(frozen=True)
class Draft:
    """A context as text, before tokenization.

    Attributes:
        document: the text that the user shows in the last turn, before the question.
        asks: the questions; each one is asked separately.
        turns: (role, text) of earlier turns.
        plain: whether the context is a text to continue instead of a conversation.
    """

    document: str
    asks: tuple[Ask, ...]
    turns: tuple[tuple[str, str], ...] = ()
    plain: bool = False


@dataclass(frozen=True)
class Source:
    """The texts that drafts are made from.

    Attributes:
        prose: the text in which facts are hidden.
        questions: number of questions about a context.
        asked: questions and answers about the prose, supplied by the user.
    """

    prose: Haystack
    questions: int
    asked: tuple[tuple[str, str], ...] = ()


Make = Callable[[random.Random, int, Source], Draft]
"""Makes a draft from a fresh random generator, a number of words (or documents), and a source."""


@dataclass(frozen=True)
class Wording:
    """A fact, the question about it, and the beginning of the answer. Fields: {key}, {value}."""

    fact: str
    question: str
    lead: str


NUMBERS = (
    Wording(
        "The secret number of {key} is {value}.",
        "Which secret number of {key} does the text give?",
        "The secret number of {key} is",
    ),
    Wording(
        "In the harbour register, the entry for {key} reads {value}.",
        "What does the entry for {key} in the harbour register read?",
        "The entry for {key} reads",
    ),
    Wording(
        "Whoever wants to reach {key} has to dial {value}.",
        "What has one to dial to reach {key}?",
        "To reach {key}, one has to dial",
    ),
)
KEYS = (
    Wording(
        "The secret uuid of {key} is {value}.",
        "Which secret uuid of {key} does the text give?",
        "The secret uuid of {key} is",
    ),
    Wording(
        "The vault of {key} opens with the code {value}.",
        "With which code does the vault of {key} open?",
        "The vault of {key} opens with the code",
    ),
)
COPIES = (
    'Repeat the passage of the text above that begins with "{given}"',
    'How does the text above go on after the words "{given}"? Quote it word for word.',
)
TURNS = (
    Wording(
        "By the way, the number of my {key} is {value}.",
        "What did I say is the number of my {key}?",
        "You said that the number of your {key} is",
    ),
    Wording(
        "Please note for later: my {key} has the ticket {value}.",
        "Which ticket does my {key} have?",
        "Your {key} has the ticket",
    ),
)
_REPLIES = ("Thank you, I will keep that in mind.", "Noted. Please go on.")
_GIVEN, _COPIED = 8, 16
"""Number of words of a passage that are given, and number of words to copy."""


def depths(rng: random.Random, count: int) -> list[float]:
    """Return a random depth in each of `count` equal parts of the first `DEEPEST` of a text."""
    return [DEEPEST * (part + rng.random()) / count for part in range(count)]


def facts(wordings: Sequence[Wording], value: Callable[[random.Random], str]) -> Make:
    """Return a function that makes drafts with facts of one wording hidden in prose."""

    def make(rng: random.Random, size: int, source: Source) -> Draft:
        wording = rng.choice(list(wordings))
        asks = [_ask(wording, key, value(rng)) for key in words.names(rng, source.questions)]
        places = zip(depths(rng, len(asks)), (ask.needle for ask in asks), strict=True)
        prose = source.prose.take(source.prose.start_near(rng.random()), size)
        return Draft(insert(prose, list(places)), tuple(asks))

    return make


def _ask(wording: Wording, key: str, value: str) -> Ask:
    fact, question, lead = (
        text.format(key=key, value=value) for text in (wording.fact, wording.question, wording.lead)
    )
    return Ask(question, lead, value, fact)


def copying(rng: random.Random, size: int, source: Source) -> Draft:
    """Make a draft that asks for passages of prose; the first words of each are given."""
    wording = rng.choice(COPIES)
    prose = source.prose.take(source.prose.start_near(rng.random()), size)
    document = "".join(prose)
    ends = [
        i
        for i, word in enumerate(prose[: int(DEEPEST * size)], 1)
        if word.rstrip().endswith((".", "!", "?"))
    ]
    asks = []
    for depth in depths(rng, source.questions):
        nearest = sorted(ends, key=lambda end: abs(end - depth * size))
        passages = (_passage(prose, start, document) for start in nearest)
        passage = next((passage for passage in passages if passage is not None), None)
        if passage is not None:
            given, rest = passage
            asks.append(Ask(wording.format(given=given), given, rest, f"{given} {rest}"))
    return Draft(document, tuple(asks))


def _passage(prose: list[str], start: int, document: str) -> tuple[str, str] | None:
    """Return the given words of a passage and the words to copy, or None if it cannot be used.

    A passage is not used if its given words occur twice in the document, if it contains a line
    break or two spaces in a row, or if it goes beyond the end of the prose.
    """
    middle, end = start + _GIVEN, start + _GIVEN + _COPIED
    if end > len(prose):
        return None
    whole = "".join(prose[start:end]).rstrip()
    given = "".join(prose[start:middle]).rstrip()
    alone = document.count(given) == 1 and "\n" not in whole
    plain = "  " not in whole
    return (given, whole[len(given) + 1 :]) if alone and plain else None


def dialogue(rng: random.Random, size: int, source: Source) -> Draft:
    """Make a dialogue in which the user shows passages, with a fact after each but the last."""
    wording = rng.choice(TURNS)
    keys = rng.sample(words.NOUNS, source.questions)
    asks = [_ask(wording, key, words.number(rng, 7)) for key in keys]
    prose = source.prose.take(source.prose.start_near(rng.random()), size)
    share = DEEPEST / len(asks)
    turns: list[tuple[str, str]] = []
    for part, ask in enumerate(asks):
        shown = prose[int(part * share * size) : int((part + 1) * share * size)]
        turns += [(USER, "".join(shown).rstrip() + BETWEEN + ask.needle)]
        turns += [(ASSISTANT, rng.choice(_REPLIES))]
    return Draft("".join(prose[int(DEEPEST * size) :]), tuple(asks), tuple(turns))


def people(rng: random.Random, size: int, source: Source) -> Draft:
    """Make short biographies of `size` invented people; ask where one lives or what one makes."""
    known = invented()
    order = rng.sample(range(len(known.documents)), min(size, len(known.documents)))
    asks = []
    for depth in depths(rng, source.questions):
        index = order[int(depth * len(order))]
        about = [question for question in known.questions if question.documents == (index,)]
        question = rng.choice(about)
        asks.append(Ask(question.text, "Answer:", question.answers[0], known.documents[index]))
    return Draft(BETWEEN.join(known.documents[index] for index in order), tuple(asks))


def reading(rng: random.Random, size: int, source: Source) -> Draft:
    """Take the beginning of the user's text, and user questions whose answers are in it."""
    document = "".join(source.prose.words[:size])
    known = [pair for pair in source.asked if pair[1] in document]
    chosen = rng.sample(known, min(source.questions, len(known)))
    return Draft(document, tuple(Ask(q, "Answer:", a, a) for q, a in chosen))


def questions(rng: random.Random, size: int, source: Source) -> Draft:
    """Make a `reading` draft if the user supplied questions, otherwise a `people` draft."""
    return (reading if source.asked else people)(rng, size, source)


OWN: dict[str, Make] = {
    "number": facts(NUMBERS, lambda rng: words.number(rng, 7)),
    "key": facts(KEYS, words.random_uuid),
    "copy": copying,
    "qa": questions,
    "turns": dialogue,
}
"""The package's own tasks by name; every needle family is a task as well."""
