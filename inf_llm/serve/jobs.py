"""What the worker does: read a document, answer a prompt."""

from __future__ import annotations

import contextlib
import time
from array import array
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from inf_llm.config import RunConfig
from inf_llm.conversation import USER
from inf_llm.errors import ConfigError, reason
from inf_llm.generation import Session, answer_ends, encode
from inf_llm.generation.citations import Citation, cite, decoded
from inf_llm.generation.prefix_cache import PrefixCache
from inf_llm.generation.text import AnswerText
from inf_llm.hf.trace import spans_of, trace
from inf_llm.serve.documents import Document
from inf_llm.serve.errors import ApiError
from inf_llm.serve.intake import Ready
from inf_llm.serve.params import Question, Sampling
from inf_llm.serve.prompts import Prompt, Prompts
from inf_llm.serve.sparing import Returning
from inf_llm.serve.worker import Job
from inf_llm.settings import InfLLMSettings

MOST_PASSAGES = 12
"""Passages listed with an answer."""


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
    """

    model: Any
    tokenizer: Any
    config: RunConfig
    pool: PrefixCache
    prompts: Prompts
    recalls: bool = field(init=False)
    _return_memory: Returning = field(default_factory=Returning, init=False)

    def __post_init__(self) -> None:
        self.recalls = isinstance(self.config.attention, InfLLMSettings)

    def try_out(self) -> str | None:
        """Answer a question with one token, as requests will be.

        Returns:
            Why chats will be refused, where the model's layout does not take the simplest one.

        Raises:
            ConfigError: the model cannot answer.
        """
        refused = None
        try:
            ids = self.prompts.of_chat(({"role": USER, "content": "Hello"},), None).ids
        except ApiError as error:
            ids, refused = array("i", encode(self.tokenizer, "Hello")), error.message
        ends = answer_ends(self.model, self.prompts.layout)
        try:
            session = Session(self.model, self.tokenizer, self.config.chunk_size)
            session.ask(ids, max_new_tokens=1, eos_token_id=ends)
        except Exception as error:
            raise ConfigError(
                f"{self.config.model.path}: the model cannot answer "
                f"({type(error).__name__}: {reason(error)})"
            ) from error
        return refused

    def read(self, document: Document, ready: Ready, job: Job) -> Document:
        """Read a document, so that questions about it find it in memory."""
        self.pool.read(ready.prompt.ids, ready.prompt.boundaries, self._watched(job))
        self.pool.trim()
        document.kept_tokens = self.pool.kept_of(ready.prompt.ids)
        return document

    def answer(
        self, question: Question, document: Document | None, ready: Ready, job: Job
    ) -> Answered:
        """Answer a prompt, emitting the text as it comes."""
        try:
            return self._answer(question, document, ready, job)
        finally:
            self.pool.trim()

    def _answer(
        self, question: Question, document: Document | None, ready: Ready, job: Job
    ) -> Answered:
        started = time.perf_counter()
        sampling, prompt = question.sampling, ready.prompt
        session, cached = self.pool.read(prompt.ids, prompt.boundaries, self._watched(job))
        text = AnswerText(self.tokenizer, sampling.stop, lambda part: job.emit(Delta(part)))
        watch = trace(self.model, prompts=False) if question.recall and self.recalls else None
        with (
            torch.random.fork_rng(enabled=sampling.seed is not None),
            watch or contextlib.nullcontext(),
        ):
            ended = self._generate(session, sampling, ready.longest, text, job)
        job.check()
        text.end()
        return Answered(
            text.text,
            "stop" if ended else "length",
            len(prompt.ids),
            cached,
            text.tokens,
            ready.cut,
            (text.first or time.perf_counter()) - started,
            None if not question.recall else self._passages(watch, prompt, document),
        )

    def _watched(self, job: Job) -> Callable[[int, int], None]:
        def on_progress(done: int, total: int) -> None:
            job.check()
            job.emit(Reading(done, total))
            self._return_memory()

        return on_progress

    def _generate(
        self, session: Session, sampling: Sampling, longest: int, text: AnswerText, job: Job
    ) -> bool:
        """Whether the answer ended before its longest; `text` gets its tokens."""
        options: dict[str, Any] = {}
        if sampling.temperature:
            options = {"temperature": sampling.temperature, "top_p": sampling.top_p}
            options["top_k"] = sampling.top_k or 0
        if sampling.seed is not None:
            torch.manual_seed(sampling.seed)
        ends = answer_ends(self.model, self.prompts.layout)
        answer = session.ask(
            max_new_tokens=longest,
            eos_token_id=ends,
            stop=sampling.stop,
            streamer=text,
            should_stop=job.cancelled.is_set,
            **options,
        )
        return text.stopped or answer.token_ids[-1] in (ends or ())

    def _passages(
        self, watch: trace | None, prompt: Prompt, document: Document | None
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
                "characters": _in_document(passage, prompt, document),
            }
            for passage in cited[:MOST_PASSAGES]
        ]


def _tokens(passage: Citation, prompt: Prompt) -> dict[str, int]:
    """Tokens of a passage; only those of its blocks where the tokenizer gives no offsets."""
    if prompt.offsets is None:
        return {"start": passage.first, "end": passage.last}
    last = bisect_left(prompt.offsets, passage.end, key=lambda span: span[0])
    return {"start": prompt.tokens_before(passage.start), "end": last}


def _in_document(passage: Citation, prompt: Prompt, document: Document | None) -> list[int] | None:
    """Characters of the document that a passage is; None where it is outside."""
    if prompt.document is None or document is None:
        return None
    start, end = prompt.document
    if not start <= passage.start < passage.end <= end:
        return None
    shift = document.lead - start
    return [passage.start + shift, passage.end + shift]
