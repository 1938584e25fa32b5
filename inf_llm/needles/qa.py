"""Questions about a few documents among many unrelated ones.

The recipe is RULER's (Hsieh et al., 2024): the documents that answer a question stand among as many
shuffled others as the length allows. Without a question set, short invented biographies are used;
the benchmark passes the sets of SQuAD and HotpotQA.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from inf_llm.needles import words
from inf_llm.needles.base import Draft, Family


@dataclass(frozen=True)
class Question:
    """A question, its accepted answers, and the indices of the documents it needs.

    `near` are documents of the same article, which are the first choice as distractors.
    """

    text: str
    answers: tuple[str, ...]
    documents: tuple[int, ...]
    near: tuple[int, ...] = ()


@dataclass(frozen=True)
class QuestionSet:
    """Questions, and the documents to which they refer by index."""

    questions: Sequence[Question] = field(repr=False)
    documents: Sequence[str] = field(repr=False)


@dataclass(frozen=True)
class Wording:
    """The sentences of the task. Fields: {number}, {document}, {query}."""

    before: str = "Find the answer to a question in these documents. Say the answer only.\n\n"
    document: str = "Document {number}:\n{document}"
    question: str = "\n\nSay the answer only, as the documents give it.\nQuestion: {query}"
    lead: str = " Answer:"


@dataclass(frozen=True)
class DocumentQA(Family):
    """One question; its documents stand at the requested depth among the distractors."""

    source: QuestionSet | None = None
    wording: Wording = field(default=Wording())

    def compose(
        self, rng: random.Random, units: int, depth: float, haystack: str | None, length: int
    ) -> Draft:
        source = self.source or invented()
        question = source.questions[rng.randrange(len(source.questions))]
        others = _distractors(rng, question, len(source.documents), units)
        place = round(depth * len(others))
        order = [*others[:place], *question.documents, *others[place:]]
        body = "\n\n".join(
            self.wording.document.format(number=i, document=source.documents[index])
            for i, index in enumerate(order, 1)
        )
        ending = (self.wording.question + self.wording.lead).format(query=question.text)
        return Draft(self.wording.before + body, ending, question.answers)


def _distractors(rng: random.Random, question: Question, total: int, n: int) -> list[int]:
    """Choose `n` documents that the question does not need: near ones first, with repetition.

    The chosen documents are shuffled.
    """
    needed = {*question.documents, *question.near}
    near = list(question.near)
    rng.shuffle(near)
    far = [i for i in range(total) if i not in needed]
    rng.shuffle(far)
    pool = near + far
    chosen = [pool[i % len(pool)] for i in range(n)]
    rng.shuffle(chosen)
    return chosen


@lru_cache(maxsize=1)
def invented(people: int = 600) -> QuestionSet:
    """Make a question set on invented people: where each one lives, and what each one makes."""
    rng = random.Random("invented people")
    names = words.names(rng, people)
    documents, questions = [], []
    for i, name in enumerate(names):
        person = " ".join(part.capitalize() for part in name.split("-"))
        home = f"{rng.choice(words.NOUNS).capitalize()} {rng.choice(('Bay', 'Hill', 'Ford'))}"
        craft = rng.choice(words.NOUNS)
        age = rng.randint(21, 88)
        documents.append(
            f"{person} is {age} years old and lives in {home}. Neighbours come to {person} "
            f"when they need a new {craft}, for nobody makes a better {craft}."
        )
        questions.append(Question(f"Where does {person} live?", (home,), (i,)))
        questions.append(Question(f"What does {person} make?", (craft,), (i,)))
    return QuestionSet(questions, documents)


QA = DocumentQA("qa", rule="contains_any", max_new_tokens=32)
