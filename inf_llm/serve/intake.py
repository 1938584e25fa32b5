"""Prompts, tokenized before they wait for the model: an impossible request is refused at once."""

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
from inf_llm.serve.fair_queue import FairQueue
from inf_llm.serve.params import Question
from inf_llm.serve.prompts import Prompt, Prompts, cut
from inf_llm.serve.shapes import ANY, Shape, Shapes
from inf_llm.units import size

LONG = 100_000
"""Characters from which a text is tokenized in a separate lane, so that short texts need not wait
for it."""
MIN_TOKENS = 2
"""Tokens of the shortest prompt with its answer."""
_T = TypeVar("_T")


@dataclass(frozen=True)
class Ready:
    """A prompt that the worker can read.

    Attributes:
        prompt: the prompt, shortened if `truncation` allows it.
        cut: number of tokens that were left out.
        longest: most tokens of the answer.
        bytes: size of the memory that the prompt needs; None if not known.
        shape: grammar and function calls of the answers.
    """

    prompt: Prompt
    cut: int
    longest: int
    bytes: int | None
    shape: Shape = ANY


@dataclass(frozen=True)
class Budget:
    """The bytes that the memories of texts may take.

    Attributes:
        bytes: bytes of one memory at most.
        needs: computes the bytes of a text's memory; None if they are not known.
        tokens: tokens of the longest text that fits.
        memories: number of memories of one text that exist at once; each may take `bytes`.
    """

    bytes: int
    needs: TextBytes | None
    tokens: int = LARGEST
    memories: int = 1

    @classmethod
    def of(cls, count: int, needs: TextBytes | None, least: int) -> Budget:
        """Make a budget that has room for at least `least` tokens.

        Args:
            count: bytes of the budget.
            needs: computes the bytes of a text's memory; None if they are not known.
            least: tokens that must fit.

        Raises:
            ConfigError: `least` tokens do not fit.
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
        """Return the budget of each of several memories of one text.

        Raises:
            ApiError: the share is too small for any text.
        """
        if memories == 1 or self.needs is None:
            return self
        each = self.bytes // memories
        tokens = min(self.needs.longest(each), self.tokens)
        shared = Budget(each, self.needs, tokens, memories)
        if tokens < MIN_TOKENS:
            shared.check(MIN_TOKENS)
        return shared

    def check(self, tokens: int) -> None:
        """Check that a text of this many tokens fits, with one token of its answer.

        Raises:
            ApiError: the text does not fit; the error has the needed and the available bytes.
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
    """Tokenizes and checks prompts in separate threads.

    Args:
        prompts: makes the prompts.
        config: configuration of the run.
        budget: bytes that the memory of a prompt must fit.
        answer_tokens: longest answer if a request gives no limit.
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
        self._queues = [FairQueue(f"layout-{name}") for name in ("short", "long")]
        self._files = FairQueue("files")

    async def question(self, client: str, question: Question, sources: Sources) -> list[Ready]:
        """Make the prompts of a client's request for answers.

        Raises:
            ApiError: the request cannot be answered.
        """
        texts = [*(m["content"] for m in question.messages), *question.prompts]
        length = sum(map(len, texts)) + sum(len(each.text) for each in sources.documents)
        return await self._run(client, length, lambda: self._of_question(question, sources))

    async def tokens(self, client: str, length: int, work: Callable[[Prompts], _T]) -> _T:
        """Run `work` for a client in the lane for texts of `length` characters.

        Raises:
            ApiError: the prompt cannot be made.
        """
        return await self._run(client, length, lambda: work(self._prompts))

    @property
    def most_tokens(self) -> int | None:
        """Tokens of the longest prompt with its answer; None for no limit."""
        most = self._most(self._budget)
        return None if most >= LARGEST else most

    async def document(self, client: str, document: Document) -> Ready:
        """Make the common beginning of all prompts about a document, and set its token counts.

        Raises:
            ApiError: the document cannot be read.
        """
        work = functools.partial(self._of_document, document)
        return await self._run(client, len(document.text), work)

    async def content(self, client: str, upload: Upload) -> DocumentText:
        """Return the text of a client's upload; for a file with its pages or headings.

        Raises:
            ApiError: the file has no text, or the package that reads its type is not installed.
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
            return await self._queues[length >= LONG].run(client, work)
        except TextError as error:
            raise ApiError(400, str(error), "context_length_exceeded") from None

    def _of_question(self, question: Question, sources: Sources) -> list[Ready]:
        budget = self._budget.shared(question.memories)
        requested = question.sampling.max_tokens
        wanted = self._answer_tokens if requested is None else requested
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
        """Return the most tokens of a prompt with its answer."""
        return min(self._config.max_len, budget.tokens)

    def _cut(self, whole: Prompt, room: int, budget: Budget) -> Prompt:
        if self._config.truncation is None and len(whole.ids) < self._config.max_len:
            budget.check(len(whole.ids))
        return cut(whole, room, self._config.truncation)

    def _room(self, wanted: int, most: int) -> int:
        """Return the tokens that a prompt may have; `most` is the limit of prompt and answer.

        A prompt that may not be cut leaves at least one token to the answer. A prompt that is cut
        leaves `wanted` tokens, but at most `answer_tokens` and at most half of `most`.
        """
        if self._config.truncation is None:
            return self._config.max_len - 1
        return most - max(1, min(wanted, self._answer_tokens, most // 2))

    def _ready(self, whole: Prompt, prompt: Prompt, longest: int) -> Ready:
        needs = self._budget.needs
        needed = None if needs is None else needs.of(len(prompt.ids) + 1)
        return Ready(prompt, len(whole.ids) - len(prompt.ids), longest, needed)
