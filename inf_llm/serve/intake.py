"""Prompts, laid out before they wait for the model: what cannot be answered is refused at once."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

from inf_llm.checks import LARGEST
from inf_llm.config import RunConfig
from inf_llm.errors import ConfigError, MissingExtraError, TextError
from inf_llm.formats import DocumentText
from inf_llm.generation import document_of
from inf_llm.plan.budget import TextBytes
from inf_llm.serve.documents import Document, Sources, Upload
from inf_llm.serve.errors import ApiError, bad_value
from inf_llm.serve.lanes import Lane
from inf_llm.serve.params import Question
from inf_llm.serve.prompts import Prompt, Prompts, cut
from inf_llm.serve.shapes import ANY, Shape, Shapes
from inf_llm.units import size

LONG = 100_000
"""Characters from which on a text is laid out in a lane of its own, so that others do not wait."""
LEAST_TOKENS = 2
"""Of the shortest prompt with its answer."""
_T = TypeVar("_T")


@dataclass(frozen=True)
class Ready:
    """A prompt that can be read.

    Attributes:
        prompt: the prompt, cut where that is allowed.
        cut: tokens that were left out.
        longest: most tokens of the answer.
        bytes: of the memory that it needs; None where that is not known.
        shape: of the answers.
    """

    prompt: Prompt
    cut: int
    longest: int
    bytes: int | None
    shape: Shape = ANY


@dataclass(frozen=True)
class Budget:
    """The memory that texts may take.

    Attributes:
        bytes: of it.
        needs: what a text takes; None where that is not known.
        tokens: of the longest text that fits.
        memories: of one text at once, each of which may take that.
    """

    bytes: int
    needs: TextBytes | None
    tokens: int = LARGEST
    memories: int = 1

    @classmethod
    def of(cls, count: int, needs: TextBytes | None, least: int) -> Budget:
        """A budget in bytes that is worth having.

        Args:
            count: of it.
            needs: what a text takes.
            least: tokens for which there must be room.

        Raises:
            ConfigError: there is none.
        """
        if needs is None:
            return cls(count, None)
        if needs.of(least) > count:
            raise ConfigError(
                f"--memory-budget is {size(count)}, but {least:,} tokens take "
                f"{size(needs.of(least))} in this model: give that and more for each text"
            )
        return cls(count, needs, min(needs.longest(count), LARGEST))

    def shared(self, memories: int) -> Budget:
        """What each of several memories of one text may take.

        Raises:
            ApiError: it is too little for any.
        """
        if memories == 1 or self.needs is None:
            return self
        each = self.bytes // memories
        tokens = min(self.needs.longest(each), self.tokens)
        shared = Budget(each, self.needs, tokens, memories)
        if tokens < LEAST_TOKENS:
            shared.check(LEAST_TOKENS)
        return shared

    def check(self, tokens: int) -> None:
        """See that a text can be read and answered.

        Raises:
            ApiError: it cannot, with the bytes that it needs and those there are.
        """
        if tokens < self.tokens or self.needs is None:
            return
        needed = self.needs.of(tokens + 1)
        there = f"--memory-budget is {size(self.bytes)}"
        if self.memories > 1:
            there = f"--memory-budget has {size(self.bytes)} for each of {self.memories} such"
        raise ApiError(
            413,
            f"the text has {tokens:,} tokens and would take {size(needed)} of memory, but {there}: "
            f"raise it, or give at most {max(0, self.tokens - 1):,} tokens",
            "memory_budget_exceeded",
            about={"kept": False, "bytes": needed, "memory_budget": self.bytes},
        )


class Intake:
    """Lays out prompts, in threads of its own.

    Args:
        prompts: how.
        config: of the run.
        budget: that prompts must fit.
        answer_tokens: longest answer where a request does not say.
        shapes: makes the shapes of answers.
    """

    def __init__(
        self,
        prompts: Prompts,
        config: RunConfig,
        budget: Budget,
        answer_tokens: int,
        shapes: Shapes,
    ) -> None:
        self._prompts, self._config, self._budget = prompts, config, budget
        self._shapes = shapes
        self._answer_tokens = answer_tokens
        self._lanes = [Lane(f"layout-{name}") for name in ("short", "long")]
        self._files = Lane("files")

    async def question(self, client: str, question: Question, sources: Sources) -> list[Ready]:
        """The prompts of a client's request for answers.

        Raises:
            ApiError: it cannot be answered.
        """
        said = [*(m["content"] for m in question.messages), *question.prompts]
        length = sum(map(len, said)) + sum(len(each.text) for each in sources.documents)
        return await self._run(client, length, lambda: self._of_question(question, sources))

    async def tokens(self, client: str, length: int, work: Callable[[Prompts], _T]) -> _T:
        """What laying out a text of so many characters comes to.

        Raises:
            ApiError: it cannot be laid out.
        """
        return await self._run(client, length, lambda: work(self._prompts))

    @property
    def most_tokens(self) -> int | None:
        """Tokens of the longest prompt with its answer; None where nothing bounds it."""
        most = self._most(self._budget)
        return None if most >= LARGEST else most

    async def document(self, client: str, document: Document) -> Ready:
        """What all prompts about a document begin with, for a client; its counts are set.

        Raises:
            ApiError: it cannot be read.
        """
        work = functools.partial(self._of_document, document)
        return await self._run(client, len(document.text), work)

    async def content(self, client: str, upload: Upload) -> DocumentText:
        """The text of a client's upload, and its places where it is a file.

        Raises:
            ApiError: there is no text in the file, or what reads its kind is not installed.
        """
        content = upload.content
        if isinstance(content, str):
            return DocumentText(content)
        name = upload.name or "file"
        try:
            return await self._files.run(client, lambda: document_of(content, name))
        except (TextError, MissingExtraError) as error:
            raise bad_value("file", str(error)) from None

    async def _run(self, client: str, length: int, work: Callable[[], _T]) -> _T:
        try:
            return await self._lanes[length >= LONG].run(client, work)
        except TextError as error:
            raise ApiError(400, str(error), "context_length_exceeded") from None

    def _of_question(self, question: Question, sources: Sources) -> list[Ready]:
        budget = self._budget.shared(question.memories)
        asked = question.sampling.max_tokens
        wanted = self._answer_tokens if asked is None else asked
        shape = self._shapes.of(question)
        prompts = self._prompts.of_question(question, sources)
        ready = [self._of_prompt(prompt, wanted, budget) for prompt in prompts]
        return [replace(each, shape=shape) for each in ready]

    def _of_prompt(self, whole: Prompt, wanted: int, budget: Budget) -> Ready:
        most = self._most(budget)
        prompt = self._cut(whole, self._room(wanted, most), budget)
        return self._ready(whole, prompt, min(wanted, most - len(prompt.ids)))

    def _of_document(self, document: Document) -> Ready:
        whole = self._prompts.of_sources(Sources((document,)))
        prompt = self._cut(whole, self._most(self._budget) - 1, self._budget)
        document.tokens = len(prompt.ids) - 1
        document.cut = len(whole.ids) - len(prompt.ids)
        ready = self._ready(whole, prompt, 1)
        document.bytes = ready.bytes
        return ready

    def _most(self, budget: Budget) -> int:
        """Tokens of a prompt with its answer."""
        return min(self._config.max_len, budget.tokens)

    def _cut(self, whole: Prompt, room: int, budget: Budget) -> Prompt:
        if self._config.truncation is None and len(whole.ids) < self._config.max_len:
            budget.check(len(whole.ids))
        return cut(whole, room, self._config.truncation)

    def _room(self, wanted: int, most: int) -> int:
        """Tokens that a prompt may have, of `most` with its answer.

        A prompt that may not be cut leaves the answer what is left, one token at least. One that
        is cut leaves it as many as are wanted, within `answer_tokens` and half of what there is.
        """
        if self._config.truncation is None:
            return self._config.max_len - 1
        return most - max(1, min(wanted, self._answer_tokens, most // 2))

    def _ready(self, whole: Prompt, prompt: Prompt, longest: int) -> Ready:
        needs = self._budget.needs
        needed = None if needs is None else needs.of(len(prompt.ids) + 1)
        return Ready(prompt, len(whole.ids) - len(prompt.ids), longest, needed)
