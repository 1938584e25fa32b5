"""Contexts as tokens, each with questions that are asked apart.

A task, a seed and a number make a context; the same three make the same one. Seeds from
`HELD_OUT` on are, by convention, never used to choose a rule or a setting: report with those.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from inf_llm.conversation import BETWEEN, USER
from inf_llm.errors import SettingsError
from inf_llm.fidelity.drafts import DEEPEST, OWN, Ask, Draft, Source
from inf_llm.generation.layout import Layout, PlainLayout
from inf_llm.generation.tokens import encode
from inf_llm.needles import build
from inf_llm.registry import accepted
from inf_llm.truncation import common_length
from inf_llm.variants import NEEDLE

HELD_OUT = 1000
PROSE = 64
"""Tokens of the prose itself that follow a context, read on as they are."""
ROOM = 192
"""Tokens that are left for the question and the answer."""
_BLOCK, _SMALL_BLOCK, _SHORT = 256, 32, 2048
"""A context is cut to a multiple of the first, so that little of it is read anew with every
question; of the second where it is shorter than the third, so that no fact is cut away."""
_MARK = "-the question stands here-"


@dataclass(frozen=True)
class Question:
    """Tokens behind a context.

    Attributes:
        tail: from the end of what is read to where the answer begins.
        answer: the tokens whose likelihood is measured.
        text: the answer as text.
        needle: where the tokens are that it is about: the first, and the one after the last.
        depth: of the needle's first token, as a share of the context.
    """

    tail: tuple[int, ...]
    answer: tuple[int, ...]
    text: str
    needle: tuple[int, int] | None = None
    depth: float | None = None


@dataclass(frozen=True)
class Context:
    """Something to read.

    Attributes:
        task: its name.
        number: of the context.
        ids: the tokens read before any question.
        questions: what is asked.
        prose: the tokens with which the text goes on; none for some tasks.
    """

    task: str
    number: int
    ids: tuple[int, ...]
    questions: tuple[Question, ...]
    prose: tuple[int, ...] = ()


@dataclass(frozen=True)
class Workshop:
    """What contexts are made with.

    Attributes:
        tokenizer: the model's.
        layout: of a conversation.
        source: the texts.
        length: most tokens of a context with its question and answer.
        seed: see `HELD_OUT`.
    """

    tokenizer: Any
    layout: Layout
    source: Source
    length: int
    seed: int

    def context(self, task: str, number: int) -> Context:
        """A context of a task.

        Raises:
            SettingsError: there is no such task, or the length is too short for it.
        """
        check_task(task)
        name = f"{task}/{self.seed}/{number}"
        if task in OWN:
            draft = self._fitted(lambda size: OWN[task](random.Random(name), size, self.source))
        else:
            draft = self._family(task, number, random.Random(name))
        return self._tokens(task, number, draft)

    def _fitted(self, make: Callable[[int], Draft]) -> Draft:
        """The largest draft that leaves room for a question; found by its own rate of tokens."""
        target, size = self.length - ROOM, max(64, self.length // 8)
        for _ in range(6):
            count = len(self._head(make(size)))
            if target * 0.985 <= count <= target:
                break
            size = max(1, int(size * (target * 0.995) / count))
        draft = make(size)
        if len(self._head(draft)) > target:
            raise SettingsError(
                f"--length {self.length} is too short for {self.source.questions} questions, of "
                f"which one and its answer may take {ROOM} tokens: ask for more, or fewer of them"
            )
        if not draft.asks:
            raise SettingsError(
                f"nothing can be asked about {self.length} tokens of this text: no answer of "
                "--qa-file, and no passage of 24 words, stands in them: raise --length"
            )
        return draft

    def _family(self, task: str, number: int, rng: random.Random) -> Draft:
        """A needle family's sample as it is, with one question, for the model to go on with."""
        sample = build(
            task,
            self.tokenizer,
            "".join(self.source.prose.words),
            self.length - ROOM,
            rng.uniform(0.02, DEEPEST),
            rng.getrandbits(32),
        )
        answer = ", ".join(sample.answers)
        needle = sample.answers[0]
        ask = Ask(sample.question, "", answer, needle)
        return Draft(sample.context, (ask,), plain=True)

    def _layout(self, draft: Draft) -> Layout:
        return PlainLayout(self.layout.hide) if draft.plain else self.layout

    def _split(self, draft: Draft) -> tuple[str, str]:
        """The prompt before the question and behind it."""
        turns = [{"role": role, "content": text} for role, text in draft.turns]
        last = {"role": USER, "content": draft.document + BETWEEN + _MARK}
        before, _, after = self._layout(draft).prompt([*turns, last]).partition(_MARK)
        return before.removesuffix(BETWEEN), after

    def _head(self, draft: Draft) -> list[int]:
        special = self._layout(draft).adds_special
        return encode(self.tokenizer, self._split(draft)[0], add_special_tokens=special)

    def _tokens(self, task: str, number: int, draft: Draft) -> Context:
        before, after = self._split(draft)
        ids = self._head(draft)
        end = len(ids)
        block = _SMALL_BLOCK if self.length < _SHORT else _BLOCK
        if not draft.plain and end - PROSE >= block:
            end = (end - PROSE) // block * block
        prose = () if draft.plain else tuple(ids[end : end + PROSE])
        questions = [self._question(draft, ask, before, after, end) for ask in draft.asks]
        return Context(task, number, tuple(ids[:end]), tuple(questions), prose)

    def _question(self, draft: Draft, ask: Ask, before: str, after: str, end: int) -> Question:
        hide = self.layout.hide
        if draft.plain:
            tail = hide(ask.question)
        else:
            tail = f"{BETWEEN}{hide(ask.question)}{after or chr(10)}{ask.lead}"
        own = encode(self.tokenizer, tail, add_special_tokens=False)
        both = encode(self.tokenizer, f"{tail} {hide(ask.answer)}", add_special_tokens=False)
        same = common_length(own, both)
        span = self._span(draft, before, ask.needle)
        depth = None if span is None else round(span[0] / end, 4)
        return Question(tuple(both[:same]), tuple(both[same:]), ask.answer, span, depth)

    def _span(self, draft: Draft, before: str, needle: str) -> tuple[int, int] | None:
        """Where a text is among the tokens of the prompt; a token more where it begins inside."""
        start = before.find(self.layout.hide(needle))
        if start < 0:
            return None
        special = self._layout(draft).adds_special
        ends = (before[:start], before[: start + len(needle)])
        first, last = (
            len(encode(self.tokenizer, text, add_special_tokens=special)) for text in ends
        )
        return first, last


def check_task(name: str) -> None:
    """See that a task is there.

    Raises:
        SettingsError: it is not.
    """
    known = (*OWN, *(row for row in NEEDLE if row not in OWN))
    if name not in known:
        raise SettingsError(f"{name!r} is not a known task; {accepted(name, known)}")
