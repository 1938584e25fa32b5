"""Jobs of the worker: read a document, forget one, answer prompts."""

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
"""Seconds that a prompt waits for memory while other prompts may overtake it."""
SAVED_FROM = 2048
"""Tokens that a conversation must have beyond its part on the disk before it is saved again."""


@dataclass(frozen=True)
class Read:
    """The result of reading a document.

    Attributes:
        document: the document with its token counts.
        memory: a copy of the document's memory, to be saved on the disk; None for no copy.
    """

    document: Document
    memory: Session | None


@dataclass
class Engine:
    """A model, its memories, and the jobs that clients request from it.

    Only the worker's thread calls the methods. `intake` makes the prompts.

    Attributes:
        model: the model, patched or not.
        tokenizer: the model's tokenizer.
        config: configuration of the run.
        pool: memories kept between requests.
        prompts: makes prompts.
        library: documents and memories on the disk; None if nothing is saved.
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
        """Answer a question with one token, in the way of a request.

        Returns:
            The reason why chats will be refused, if the chat template refuses the simplest chat;
            otherwise None.

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
        """Read a document and keep its memory for questions about the document."""
        ids = ready.prompt.ids
        session, _ = yield from self._read(ready.prompt, job)
        self.pool.release(session)
        document.kept_tokens = self.pool.kept_of(ids)
        return Read(document, None if self.library is None else self.pool.fork_for_disk(ids))

    def forget(self, document: Prompt, others: Sequence[Prompt]) -> Steps:
        """Drop the memories of a document, except the parts that other documents share.

        Memories in use are dropped after their use.
        """
        shared = [other.ids[:-1] for other in others]
        while not self.pool.forget(document.document_ids, shared):
            yield None

    def answer(
        self, question: Question, sources: Sources, prompts: Sequence[Ready], job: Job
    ) -> Steps:
        """Generate all answers of a request and emit each piece of text at once."""
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
            self._save_conversation(ready.prompt, sources)
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
        """Return the beginning of the answers to a prompt that was read; see `Beginning`."""
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
        """Make the rows of the answers to a prompt, each with its first token.

        The end of the prompt is fed once. Then each further answer gets a fork of the memory.
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
        """Decode all rows to their end and return their answers."""
        choices: dict[int, Choice] = {}
        going = list(rows)
        while True:
            for row in going:
                if row.decoding.over:
                    recalled = None
                    if question.recall:
                        recalled = passages(self.tokenizer, row.decoding.trace, prompt, sources)
                    choices[row.answer.index] = row.finish(recalled)
            going = [row for row in going if not row.decoding.over]
            if not going:
                return [choices[row.answer.index] for row in rows]
            for row in going:
                yield from row.decoding.catch_up()
            yield [row.decoding for row in going]

    def _save_conversation(self, prompt: Prompt, sources: Sources) -> None:
        """Save the memory of a conversation if the disk lacks `SAVED_FROM` of its tokens."""
        if self.library is not None:
            memory = self.pool.fork_for_disk(prompt.ids, SAVED_FROM)
            if memory is not None:
                self.library.keep_memory(memory, sources.documents)

    def _read(
        self, prompt: Prompt, job: Job, memories: int = 1, scores: PromptScores | None = None
    ) -> Generator[int | None, None, tuple[Session, int]]:
        """Read a prompt in steps.

        Returns:
            The session, in use until it is released, and the number of tokens that were in memory
            already; see `PrefixCache.reading`.
        """
        yield from self._wait_for_room(prompt, job, memories, scores is not None)
        on_logits = None if scores is None else scores.on_logits
        reading = self.pool.reading(prompt.ids, prompt.boundaries, on_logits, job.piggyback)
        done = None
        other_tokens = job.tokens - len(prompt.ids)  # of the later prompts of this job
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
        """Wait until the budget has room for `memories` memories of a prompt beside those in use.

        Args:
            prompt: the prompt.
            job: the job that waits.
            memories: number of memories that continue from the prompt.
            fresh: whether the whole prompt is read, even if it is in memory.
        """
        self._waiting[job] = time.monotonic()
        try:
            while not (self._may_go(job) and self.pool.has_room(prompt.ids, memories, fresh)):
                yield None
        finally:
            del self._waiting[job]

    def _may_go(self, job: Job) -> bool:
        """Return whether no other job has waited `PATIENCE` seconds and so must go first."""
        first, since = next(iter(self._waiting.items()))
        return first is job or time.monotonic() - since < PATIENCE
