"""What the worker does: read a document, answer a prompt."""

from __future__ import annotations

import time
from array import array
from bisect import bisect_left
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import torch

from inf_llm.config import RunConfig
from inf_llm.conversation import USER
from inf_llm.errors import ConfigError, reason
from inf_llm.generation import Session, answer_ends, encode
from inf_llm.generation.citations import Citation, cite, decoded
from inf_llm.generation.decoding import Decoding
from inf_llm.generation.options import answer_options
from inf_llm.generation.prefix_cache import PrefixCache
from inf_llm.generation.text import AnswerText, Ended
from inf_llm.hf.decoder import device_of
from inf_llm.hf.trace import spans_of, trace
from inf_llm.serve.documents import Document, Sources
from inf_llm.serve.errors import ApiError
from inf_llm.serve.heap import HeapTrim
from inf_llm.serve.intake import Ready
from inf_llm.serve.library import Library
from inf_llm.serve.pace import Pace
from inf_llm.serve.params import Question, Sampling
from inf_llm.serve.prompts import Prompt, Prompts
from inf_llm.serve.worker import Job, Steps
from inf_llm.settings import InfLLMSettings

MOST_PASSAGES = 12
"""Passages listed with an answer."""
PATIENCE = 10.0
"""Seconds that a prompt waits for room while others go before it."""
SHELVED_FROM = 2048
"""Tokens that a conversation has more than what is on the disk, before it goes there too."""


@dataclass(frozen=True)
class Reading:
    """So many tokens of a prompt are read."""

    done: int
    total: int


@dataclass(frozen=True)
class Delta:
    """More of an answer."""

    text: str


@dataclass(frozen=True)
class Answered:
    """An answer is complete.

    Attributes:
        text: all of it.
        reason: "stop", or "length" where it was cut.
        prompt_tokens, cached_tokens, new_tokens: counts; cached ones were in memory already.
        cut_tokens: tokens of the prompt that were left out; they are not in `prompt_tokens`.
        first_token: seconds from the start of the job to the first token.
        passages: what was recalled, in the form of the API; None where it was not asked for.
    """

    text: str
    reason: str
    prompt_tokens: int
    cached_tokens: int
    new_tokens: int
    cut_tokens: int
    first_token: float
    passages: list[dict[str, Any]] | None = None


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

    def answer(self, question: Question, sources: Sources, ready: Ready, job: Job) -> Steps:
        """Answer a prompt, emitting the text as it comes."""
        started = time.perf_counter()
        sampling, prompt = question.sampling, ready.prompt
        session, cached = yield from self._read(prompt, job)
        text = AnswerText(self.tokenizer, sampling.stop, lambda part: job.emit(Delta(part)))
        traced = question.recall and self.recalls
        try:
            row = self._row(session, sampling, ready.longest, text, traced)
            while not row.over:
                yield from row.catch_up()
                yield row
        finally:
            self.pool.release(session)
        text.end()
        self._shelve(prompt, sources)
        ended = text.stopped or row.new[-1] in (self._ends or ())
        return Answered(
            text.text,
            "stop" if ended else "length",
            len(prompt.ids),
            cached,
            text.tokens,
            ready.cut,
            (text.first or time.perf_counter()) - started,
            None if not question.recall else self._passages(row.trace, prompt, sources),
        )

    def _shelve(self, prompt: Prompt, sources: Sources) -> None:
        """Keep what has read a conversation on the disk, if that has much less of it."""
        if self.library is not None:
            memory = self.pool.unshelved(prompt.ids, SHELVED_FROM)
            if memory is not None:
                self.library.keep_memory(memory, sources.documents)

    def _read(self, prompt: Prompt, job: Job) -> Generator[int | None, None, tuple[Session, int]]:
        """Read a prompt; what `PrefixCache.read` gives, in use until it is released."""
        yield from self._wait_for_room(prompt, job)
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

    def _wait_for_room(self, prompt: Prompt, job: Job) -> Iterator[None]:
        """Wait until those in use leave room for a prompt."""
        self._waiting[job] = time.monotonic()
        try:
            while not (self._may_go(job) and self.pool.has_room(prompt.ids)):
                yield None
        finally:
            del self._waiting[job]

    def _may_go(self, job: Job) -> bool:
        """Whether no other one has waited for so long that it goes first."""
        first, since = next(iter(self._waiting.items()))
        return first is job or time.monotonic() - since < PATIENCE

    def _row(
        self, session: Session, sampling: Sampling, longest: int, text: AnswerText, traced: bool
    ) -> Decoding:
        """An answer to what a session has read; `text` gets its tokens."""
        asked: dict[str, Any] = {"eos_token_id": self._ends}
        if sampling.temperature:
            asked |= {"temperature": sampling.temperature, "top_p": sampling.top_p}
            asked["top_k"] = sampling.top_k or 0
        options = answer_options(self.model, self.tokenizer, longest, asked)
        if sampling.stop:
            ends = Ended(self.tokenizer, sampling.stop, None, len(session.ids))
            options["stopping_criteria"] = [ends]
        generator = None
        if sampling.seed is not None:
            generator = torch.Generator(device_of(self.model)).manual_seed(sampling.seed)
        return Decoding(session, options, text, generator, traced)

    def _passages(
        self, watch: trace | None, prompt: Prompt, sources: Sources
    ) -> list[dict[str, Any]]:
        """What was recalled for the answer, the most recalled first."""
        if watch is None:
            return []
        recalls = watch.generated()
        spans = spans_of(recalls).values()
        if prompt.offsets is None:
            text, places = decoded(self.tokenizer, prompt.ids.tolist(), spans)
        else:
            text, found = prompt.text, {span: prompt.place(*span) for span in spans}
            places = {span: place for span, place in found.items() if place is not None}
        cited = cite(recalls, text, places, prompt.document, self.tokenizer.all_special_tokens)
        return [
            {
                **_tokens(passage, prompt),
                "score": round(passage.score, 4),
                "recalls": passage.count,
                "layers": list(passage.layers),
                "text": text[passage.start : passage.end],
                **_in_document(passage, prompt, sources),
            }
            for passage in cited[:MOST_PASSAGES]
        ]


def _tokens(passage: Citation, prompt: Prompt) -> dict[str, int]:
    """Tokens of a passage; only those of its blocks where the tokenizer gives no offsets."""
    if prompt.offsets is None:
        return {"start": passage.first, "end": passage.last}
    last = bisect_left(prompt.offsets, passage.end, key=lambda span: span[0])
    return {"start": prompt.tokens_before(passage.start), "end": last}


def _in_document(passage: Citation, prompt: Prompt, sources: Sources) -> dict[str, Any]:
    """The document that a passage is in, its characters there and their page; None outside."""
    start = None if prompt.document is None else prompt.document[0]
    found = None if start is None else sources.place(passage.start - start, passage.end - start)
    if found is None:
        return {"document": None, "characters": None, "label": None}
    document, first, last = found
    return {
        "document": {"id": document.id, "name": document.name},
        "characters": [first, last],
        "label": document.label(first, last) or None,
    }
