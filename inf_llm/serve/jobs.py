"""What the worker does: read a document, answer a prompt."""

from __future__ import annotations

import time
from array import array
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import torch

from inf_llm.config import RunConfig
from inf_llm.conversation import USER
from inf_llm.errors import ConfigError, reason
from inf_llm.generation import Session, answer_ends, encode
from inf_llm.generation.decoding import Decoding, feed_all
from inf_llm.generation.options import answer_options
from inf_llm.generation.penalties import AnswerPenalties
from inf_llm.generation.prefix_cache import InUse, PrefixCache
from inf_llm.generation.text import AnswerText, Ended
from inf_llm.hf.decoder import device_of
from inf_llm.serve.answers import Answered, Answering, Choice, Delta, Reading
from inf_llm.serve.documents import Document, Sources
from inf_llm.serve.errors import ApiError
from inf_llm.serve.heap import HeapTrim
from inf_llm.serve.intake import Ready
from inf_llm.serve.library import Library
from inf_llm.serve.pace import Pace
from inf_llm.serve.params import Question
from inf_llm.serve.passages import passages
from inf_llm.serve.prompts import Prompt, Prompts
from inf_llm.serve.worker import Job, Steps
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
    _waiting: dict[Job, float] = field(default_factory=dict, init=False)
    _return_memory: HeapTrim = field(default_factory=HeapTrim, init=False)

    def __post_init__(self) -> None:
        self.recalls = isinstance(self.config.attention, InfLLMSettings)
        self.pace = Pace(self.pool.grain, self.config.chunk_size)
        self._ends = answer_ends(self.model, self.prompts.layout)

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
            session.ask(ids, max_new_tokens=1, eos_token_id=self._ends)
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

    def answer(
        self, question: Question, sources: Sources, prompts: Sequence[Ready], job: Job
    ) -> Steps:
        """Give all answers of a request, emitting their texts as they come."""
        started = time.perf_counter()
        choices: list[Choice] = []
        cached, first = 0, None
        for ready in prompts:
            session, reused = yield from self._read(ready.prompt, job, question.n)
            cached += reused
            with self.pool.in_use(session) as used:
                going = yield from self._begin(question, ready, used, len(choices), job)
                first = first or going[0].text.first
                choices += yield from self._finish(going, question, ready.prompt, sources, job)
            self._shelve(ready.prompt, sources)
        return Answered(
            tuple(choices),
            sum(len(ready.prompt.ids) for ready in prompts),
            cached,
            sum(ready.cut for ready in prompts),
            (first or time.perf_counter()) - started,
        )

    def _begin(
        self, question: Question, ready: Ready, used: InUse, first: int, job: Job
    ) -> Generator[int, None, list[Answering]]:
        """The answers to a prompt that is read, each with its first token.

        The end of the prompt is fed once, and then the memory is forked.
        """
        made = self._answering(question, ready, used.session, first, 0, job)
        yield from made.row.catch_up()
        waiting = made.row.waiting
        (logits,) = feed_all([made.row])
        answers = [made]
        for number in range(1, question.n):
            fork = used.fork()
            answers.append(self._answering(question, ready, fork, first + number, number, job))
        for each in answers:
            each.row.choose(logits)
        yield waiting
        return answers

    def _finish(
        self,
        answers: Sequence[Answering],
        question: Question,
        prompt: Prompt,
        sources: Sources,
        job: Job,
    ) -> Generator[int | list[Decoding], None, list[Choice]]:
        """The answers to their ends, in their order."""
        choices: dict[int, Choice] = {}
        going = list(answers)
        while True:
            for each in going:
                if each.row.over:
                    found = None
                    if question.recall:
                        found = passages(self.tokenizer, each.row.trace, prompt, sources)
                    choices[each.index] = each.choice(found)
                    job.emit(choices[each.index])
            going = [each for each in going if not each.row.over]
            if not going:
                return [choices[each.index] for each in answers]
            for each in going:
                yield from each.row.catch_up()
            yield [each.row for each in going]

    def _answering(
        self, question: Question, ready: Ready, session: Session, index: int, number: int, job: Job
    ) -> Answering:
        """An answer to what a session has read, the one of this number to its prompt."""
        sampling, prompt = question.sampling, len(session.ids)
        ends = None if sampling.ignore_eos else self._ends
        asked = sampling.asked(ready.longest) | {"eos_token_id": ends}
        options = answer_options(self.model, self.tokenizer, ready.longest, asked)
        if sampling.stop:
            options["stopping_criteria"] = [Ended(self.tokenizer, sampling.stop, None, prompt)]
        if sampling.penalizes:
            found = sampling.frequency_penalty, sampling.presence_penalty
            options["logits_processor"] = [AnswerPenalties(prompt, *found)]
        generator, seed = None, sampling.seed_of(number)
        if seed is not None:
            generator = torch.Generator(device_of(self.model)).manual_seed(seed)
        text = AnswerText(
            self.tokenizer, sampling.stop, lambda piece: job.emit(Delta(index, piece))
        )
        traced = question.recall and self.recalls
        row = Decoding(session, options, text, generator, traced)
        return Answering(index, row, text, tuple(ends or ()))

    def _shelve(self, prompt: Prompt, sources: Sources) -> None:
        """Keep what has read a conversation on the disk, if that has much less of it."""
        if self.library is not None:
            memory = self.pool.unshelved(prompt.ids, SHELVED_FROM)
            if memory is not None:
                self.library.keep_memory(memory, sources.documents)

    def _read(
        self, prompt: Prompt, job: Job, answers: int = 1
    ) -> Generator[int | None, None, tuple[Session, int]]:
        """Read a prompt; what `PrefixCache.read` gives, in use until it is released."""
        yield from self._wait_for_room(prompt, job, answers)
        reading, done = self.pool.reading(prompt.ids, prompt.boundaries), None
        with closing(reading):
            while True:
                self.pool.chunk_size = self.pace.tokens
                started = time.perf_counter()
                try:
                    before, done = done, next(reading)
                except StopIteration as end:
                    result: tuple[Session, int] = end.value
                    return result
                fed = 0 if before is None else done - before
                self.pace.note(fed, time.perf_counter() - started)
                job.emit(Reading(done, len(prompt.ids)))
                self._return_memory()
                yield fed

    def _wait_for_room(self, prompt: Prompt, job: Job, answers: int) -> Iterator[None]:
        """Wait until those in use leave room for a prompt, with a memory for each answer."""
        self._waiting[job] = time.monotonic()
        try:
            while not (self._may_go(job) and self.pool.has_room(prompt.ids, answers)):
                yield None
        finally:
            del self._waiting[job]

    def _may_go(self, job: Job) -> bool:
        """Whether no other one has waited for so long that it goes first."""
        first, since = next(iter(self._waiting.items()))
        return first is job or time.monotonic() - since < PATIENCE
