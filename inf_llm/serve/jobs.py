"""What the worker does: read a document, answer a prompt."""

from __future__ import annotations

import time
from array import array
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from inf_llm.config import RunConfig
from inf_llm.conversation import USER
from inf_llm.errors import ConfigError, reason
from inf_llm.generation import Session, answer_ends, encode
from inf_llm.generation.decoding import PromptEnd
from inf_llm.generation.likelihood import PromptScores
from inf_llm.generation.prefill import scored_length
from inf_llm.generation.prefix_cache import PrefixCache
from inf_llm.generation.room import InUse
from inf_llm.serve.answers import Answered, Choice, Reading
from inf_llm.serve.documents import Document, Sources
from inf_llm.serve.errors import ApiError
from inf_llm.serve.heap import HeapTrim
from inf_llm.serve.intake import Ready
from inf_llm.serve.library import Library
from inf_llm.serve.pace import Pace
from inf_llm.serve.params import Question
from inf_llm.serve.passages import passages
from inf_llm.serve.prompts import Prompt, Prompts
from inf_llm.serve.rows import Answer, Beginning, Row, Rows
from inf_llm.serve.worker import Job, Steps, Waiting
from inf_llm.settings import InfLLMSettings

PATIENCE = 10.0
"""Seconds that a prompt waits for room while others go before it."""
SHELVED_FROM = 2048
"""Tokens that a conversation has more than what is on the disk, before it goes there too."""


@dataclass(frozen=True)
class Read:
    """A document is read.

    Attributes:
        document: with its counts of tokens.
        memory: a copy of what has read it, for the disk; None where there is none.
    """

    document: Document
    memory: Session | None


@dataclass
class Engine:
    """A model and what is needed to serve it. Its methods are for the worker's thread; prompts
    come from `intake`.

    Attributes:
        model: patched or not.
        tokenizer: the model's.
        config: of the run.
        pool: memories kept between requests.
        prompts: lays out prompts.
        library: what is kept on a disk, if anything is.
    """

    model: Any
    tokenizer: Any
    config: RunConfig
    pool: PrefixCache
    prompts: Prompts
    library: Library | None = None
    recalls: bool = field(init=False)
    pace: Pace = field(init=False)
    _rows: Rows = field(init=False)
    _waiting: dict[Job, float] = field(default_factory=dict, init=False)
    _return_memory: HeapTrim = field(default_factory=HeapTrim, init=False)

    def __post_init__(self) -> None:
        self.recalls = isinstance(self.config.attention, InfLLMSettings)
        self.pace = Pace(self.pool.grain, self.config.chunk_size)
        ends = answer_ends(self.model, self.prompts.layout) or []
        self._rows = Rows(self.model, self.tokenizer, ends, self.recalls)

    def try_out(self) -> str | None:
        """Answer a question with one token, as requests will be.

        Returns:
            Why chats will be refused, where the model's layout does not take the simplest one.

        Raises:
            ConfigError: the model cannot answer.
        """
        refused = None
        try:
            ids = self.prompts.of_chat(({"role": USER, "content": "Hello"},), Sources()).ids
        except ApiError as error:
            ids, refused = array("i", encode(self.tokenizer, "Hello")), error.message
        try:
            session = Session(self.model, self.tokenizer, self.config.chunk_size)
            session.ask(ids, max_new_tokens=1, eos_token_id=self._rows.ends or None)
        except Exception as error:
            raise ConfigError(
                f"{self.config.model.path}: the model cannot answer "
                f"({type(error).__name__}: {reason(error)})"
            ) from error
        return refused

    def read(self, document: Document, ready: Ready, job: Job) -> Steps:
        """Read a document, so that questions about it find it in memory."""
        ids = ready.prompt.ids
        session, _ = yield from self._read(ready.prompt, job)
        self.pool.release(session)
        document.kept_tokens = self.pool.kept_of(ids)
        return Read(document, None if self.library is None else self.pool.unshelved(ids))

    def forget(self, document: Prompt, others: Sequence[Prompt]) -> Steps:
        """Let go of the memories of a document, but for what others share that stay.

        Those in use are let go after use.
        """
        shared = [other.ids[:-1] for other in others]
        while not self.pool.forget(document.document_ids, shared):
            yield None

    def answer(
        self, question: Question, sources: Sources, prompts: Sequence[Ready], job: Job
    ) -> Steps:
        """Give all answers of a request, emitting their texts as they come."""
        started = time.perf_counter()
        choices: list[Choice] = []
        cached, first = 0, None
        for ready in prompts:
            ids = ready.prompt.ids
            scores = PromptScores(ids, question.logprobs or 0) if question.scores_prompt else None
            session, reused = yield from self._read(ready.prompt, job, question.memories, scores)
            cached += reused
            with self.pool.in_use(session) as used:
                begins = self._beginning(question, ready.prompt, used, scores)
                answers = [
                    self._rows.answer(question, len(choices) + number, begins, job)
                    for number in range(question.n)
                ]
                if not ready.longest:
                    choices += (answer.finish("length", None) for answer in answers)
                    continue
                rows = yield from self._begin(question, ready, used, answers)
                first = first or rows[0].text.first
                choices += yield from self._finish(rows, question, ready.prompt, sources)
            self._shelve(ready.prompt, sources)
        return Answered(
            tuple(choices),
            sum(len(ready.prompt.ids) for ready in prompts),
            cached,
            sum(ready.cut for ready in prompts),
            (first or time.perf_counter()) - started,
        )

    def _beginning(
        self, question: Question, prompt: Prompt, used: InUse, scores: PromptScores | None
    ) -> Beginning:
        """What stands before the answers to a prompt that was read."""
        if not question.echo:
            return Beginning()
        text = prompt.text or self.tokenizer.decode(prompt.ids.tolist(), skip_special_tokens=True)
        if scores is None:
            return Beginning(text)
        places = prompt.offsets
        offsets = None if places is None else [start for start, _ in places]
        return Beginning(text, scores.finish(used.fork()), offsets)

    def _begin(
        self, question: Question, ready: Ready, used: InUse, answers: Sequence[Answer]
    ) -> Generator[int | Waiting, None, list[Row]]:
        """The rows of answers to a prompt that is read, each with its first token.

        The end of the prompt is fed once, and then the memory is forked.
        """
        rows = [self._rows.row(question, ready, answers[0], used.session, 0)]
        end = PromptEnd(rows[0].decoding)
        while end.logits is None:
            yield from rows[0].decoding.catch_up()
            yield [end]
        for number, answer in enumerate(answers[1:], 1):
            rows.append(self._rows.row(question, ready, answer, used.fork(), number))
        for row in rows:
            row.decoding.choose(end.logits)
        return rows

    def _finish(
        self, rows: Sequence[Row], question: Question, prompt: Prompt, sources: Sources
    ) -> Generator[int | Waiting, None, list[Choice]]:
        """The answers of rows, each given to its end."""
        choices: dict[int, Choice] = {}
        going = list(rows)
        while True:
            for row in going:
                if row.decoding.over:
                    found = None
                    if question.recall:
                        found = passages(self.tokenizer, row.decoding.trace, prompt, sources)
                    choices[row.answer.index] = row.finish(found)
            going = [row for row in going if not row.decoding.over]
            if not going:
                return [choices[row.answer.index] for row in rows]
            for row in going:
                yield from row.decoding.catch_up()
            yield [row.decoding for row in going]

    def _shelve(self, prompt: Prompt, sources: Sources) -> None:
        """Keep what has read a conversation on the disk, if that has much less of it."""
        if self.library is not None:
            memory = self.pool.unshelved(prompt.ids, SHELVED_FROM)
            if memory is not None:
                self.library.keep_memory(memory, sources.documents)

    def _read(
        self, prompt: Prompt, job: Job, memories: int = 1, scores: PromptScores | None = None
    ) -> Generator[int | None, None, tuple[Session, int]]:
        """Read a prompt; what `PrefixCache.read` gives, in use until it is released."""
        yield from self._wait_for_room(prompt, job, memories, scores is not None)
        hear = None if scores is None else scores.hear
        reading = self.pool.reading(prompt.ids, prompt.boundaries, hear, job.company)
        done = None
        other_tokens = job.tokens - len(prompt.ids)  # of prompts that come after this one
        with closing(reading):
            while True:
                self.pool.chunk_size = self.pace.tokens
                if scores is not None:
                    self.pool.chunk_size = scored_length(self.model, self.pace.tokens)
                started = time.perf_counter()
                try:
                    before, done = done, next(reading)
                except StopIteration as end:
                    result: tuple[Session, int] = end.value
                    job.tokens = other_tokens
                    return result
                fed = 0 if before is None else done - before
                self.pace.note(fed, time.perf_counter() - started)
                job.tokens = other_tokens + len(prompt.ids) - done
                job.emit(Reading(done, len(prompt.ids)))
                self._return_memory()
                yield fed

    def _wait_for_room(
        self, prompt: Prompt, job: Job, memories: int, fresh: bool
    ) -> Iterator[None]:
        """Wait until those in use leave room for so many memories of a prompt."""
        self._waiting[job] = time.monotonic()
        try:
            while not (self._may_go(job) and self.pool.has_room(prompt.ids, memories, fresh)):
                yield None
        finally:
            del self._waiting[job]

    def _may_go(self, job: Job) -> bool:
        """Whether no other one has waited for so long that it goes first."""
        first, since = next(iter(self._waiting.items()))
        return first is job or time.monotonic() - since < PATIENCE
