"""Contexts as tokens, each with questions that are asked separately.

A task, a seed and a number define a context: the same three always make the same context. Seeds
from `HELD_OUT` on are, by convention, never used to choose a rule or a setting; they are for
results that are reported.
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
"""Number of tokens of the same prose that follow a context and are predicted, too."""
ROOM = 192
"""Number of tokens reserved for the question and the answer."""
_BLOCK, _SMALL_BLOCK, _SHORT = 256, 32, 2048
"""A context is cut to a multiple of `_BLOCK`, so that few of its tokens are read again with every
question. Below a length of `_SHORT` the multiple is that of `_SMALL_BLOCK`, so that no fact is
cut off."""
_MARK = "-the question stands here-"


@dataclass(frozen=True)
class Question:
    """A question as tokens after a context.

    Attributes:
        tail: the tokens from the end of the context to the beginning of the answer.
        answer: the tokens whose likelihood is measured.
        text: the answer as text.
        needle: positions of the needle's first token and of the token after its last, or None.
        depth: position of the needle's first token as a share of the context, or None.
    """

    tail: tuple[int, ...]
    answer: tuple[int, ...]
    text: str
    needle: tuple[int, int] | None = None
    depth: float | None = None


@dataclass(frozen=True)
class Context:
    """A context to read, and its questions.

    Attributes:
        task: name of the task.
        number: number of the context within its task.
        ids: the tokens that are read before any question.
        questions: the questions about the context.
        prose: the tokens with which the text continues; empty for some tasks.
    """

    task: str
    number: int
    ids: tuple[int, ...]
    questions: tuple[Question, ...]
    prose: tuple[int, ...] = ()


@dataclass(frozen=True)
class ContextBuilder:
    """Makes contexts.

    Attributes:
        tokenizer: the model's tokenizer.
        layout: layout of a conversation.
        source: the texts.
        length: most tokens of a context with its question and answer.
        seed: seed of the contexts; see `HELD_OUT`.
    """

    tokenizer: Any
    layout: Layout
    source: Source
    length: int
    seed: int

    def context(self, task: str, number: int) -> Context:
        """Make the context of a task with this number.

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
        """Return the largest draft that leaves room for a question.

        Its size is found step by step, from the tokens per unit of size of the draft before.
        """
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
        """Make a needle family's sample, unchanged, as a text to continue with one question."""
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
        """Return the prompt before the question and after the question."""
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
        tail_ids = encode(self.tokenizer, tail, add_special_tokens=False)
        both = encode(self.tokenizer, f"{tail} {hide(ask.answer)}", add_special_tokens=False)
        same = common_length(tail_ids, both)
        span = self._span(draft, before, ask.needle)
        depth = None if span is None else round(span[0] / end, 4)
        return Question(tuple(both[:same]), tuple(both[same:]), ask.answer, span, depth)

    def _span(self, draft: Draft, before: str, needle: str) -> tuple[int, int] | None:
        """Return the token span of a text in the prompt.

        The span may begin a token too late if the text begins inside a token.
        """
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
    """Check that a task exists.

    Raises:
        SettingsError: there is no such task.
    """
    known = (*OWN, *(row for row in NEEDLE if row not in OWN))
    if name not in known:
        raise SettingsError(f"{name!r} is not a known task; {accepted(name, known)}")
