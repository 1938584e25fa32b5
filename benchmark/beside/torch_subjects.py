"""Subjects that use torch: this package, plain transformers, and retrieval by BM25."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from benchmark.beside.base import WARM_UP, Subject
from benchmark.beside.job import Job
from benchmark.beside.passages import Passages
from inf_llm.cli.options import load_quietly
from inf_llm.fidelity.tasks import Question
from inf_llm.generation import Session
from inf_llm.generation.decoding import Decoding, step
from inf_llm.generation.options import answer_options
from inf_llm.generation.prefill import feed
from inf_llm.hf.dtype import dtype_name
from inf_llm.hf.generate import answering
from inf_llm.hf.load import load_bare
from inf_llm.settings import InfLLMSettings


class Package(Subject):
    """This package with a session: the document is read once, each question in a fork."""

    overrides: tuple[str, ...] = ()

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self._config = job.settings(*self.overrides)
        self.model, self.tokenizer = load_quietly(self._config)
        self._session = self._empty()

    def _empty(self) -> Session:
        return Session(self.model, self.tokenizer, self._config.chunk_size)

    def warm_up(self) -> None:
        session = self._empty()
        session.ask(list(self.job.context.ids[-WARM_UP:]), max_new_tokens=2)

    @torch.no_grad()
    def ask(self, question: Question, tokens: int) -> Iterator[int]:
        if not self._session.ids:
            self._session.read(list(self.job.context.ids))
        fork = self._session.fork()
        fork.read(list(question.tail))
        options = answer_options(self.model, self.tokenizer, tokens, {"min_new_tokens": tokens})
        answer = Decoding(fork, options)
        while not answer.over:
            step([answer])
            yield answer.new[-1]

    @torch.no_grad()
    def likelihood(self, question: Question) -> float:
        fork = self._session.fork()
        ids = [*fork.ids[fork.fed :], *question.tail, *question.answer]
        last_too = getattr(self._config.attention, "split_last", True)
        end = len(fork.ids) + len(question.tail) + (not last_too)
        with answering(end):
            logits = feed(self.model, fork.tensor(ids), fork.cache, len(question.answer) + 1)
        return nats(logits[0, :-1], question)

    def text(self, ids: list[int]) -> str:
        return str(self.tokenizer.decode(ids, skip_special_tokens=True))

    def how(self) -> dict[str, Any]:
        return {"dtype": dtype_name(self.model.dtype)}


class DensePackage(Package):
    """This package with dense prefill: full attention for the document, then the memory."""

    overrides = ("model.prefill=dense",)


class Transformers(Subject):
    """transformers with sdpa; its `DynamicCache` is cropped to the document between questions.

    The document is read in one forward pass, as `generate` does. Attention then needs no mask
    tensor, and skips key blocks that are masked for all queries.
    """

    chunk: int | None = None
    """Number of document tokens per forward pass; None for all tokens in one pass."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self.model, self.tokenizer = load_bare(job.settings())
        ends = self.model.generation_config.eos_token_id
        self._ends = [] if ends is None else ends if isinstance(ends, list) else [ends]
        self._document: list[int] = []
        self._cache = self._empty()

    def _empty(self) -> DynamicCache:
        return DynamicCache(config=self.model.config)

    def before(self, question: Question) -> list[int]:
        """Return the tokens to feed before a question."""
        return list(self.job.context.ids)

    def warm_up(self) -> None:
        self._feed(self.job.context.ids[-WARM_UP:])
        self._cache = self._empty()

    @torch.no_grad()
    def _feed(self, ids: Any, logits: int = 1) -> Tensor:
        """Feed tokens; return the logits (k, V) of the last k = `logits` tokens."""
        output = self.model(
            torch.tensor([ids]), past_key_values=self._cache, logits_to_keep=logits, use_cache=True
        )
        return output.logits[0]

    def _next_logits(self, question: Question, answer: tuple[int, ...] = ()) -> Tensor:
        """Return the next-token logits after the question and after each token of `answer`."""
        document = self.before(question)
        if document != self._document:
            self._cache, self._document = self._empty(), document
            size = self.chunk or len(document)
            for first in range(0, len(document), size):
                self._feed(document[first : first + size])
        if (extra := self._cache.get_seq_length() - len(document)) > 0:
            self._cache.crop(-extra)
        return self._feed([*question.tail, *answer], len(answer) + 1)

    def ask(self, question: Question, tokens: int) -> Iterator[int]:
        logits = self._next_logits(question)
        for left in range(tokens, 0, -1):
            logits[-1, self._ends] = -torch.inf
            token = int(logits[-1].argmax())
            yield token
            if left > 1:
                logits = self._feed([token])

    def likelihood(self, question: Question) -> float:
        return nats(self._next_logits(question, question.answer)[:-1], question)

    def text(self, ids: list[int]) -> str:
        return str(self.tokenizer.decode(ids, skip_special_tokens=True))

    def how(self) -> dict[str, Any]:
        attention = self.model.config._attn_implementation
        return {"dtype": dtype_name(self.model.dtype), "attention": attention, "chunk": self.chunk}


class TransformersInChunks(Transformers):
    """`Transformers` that reads in chunks, as is needed if one pass does not fit in memory."""

    chunk = 2048


class Retrieval(Transformers):
    """`Transformers` with retrieval: the first tokens and the best passages by BM25 are read.

    The model sees at most as many tokens as a query of inf-llm attends to with the same
    configuration: sinks, local window and recalled blocks.
    """

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        settings = job.settings().attention
        assert isinstance(settings, InfLLMSettings)
        self._sinks = settings.n_init
        self._budget = self._sinks + settings.n_local + settings.topk * settings.block_size
        self._passages: Passages | None = None

    def before(self, question: Question) -> list[int]:
        ids = list(self.job.context.ids)
        if self._passages is None:
            self._passages = Passages(self.tokenizer, ids[self._sinks :])
        room = self._budget - self._sinks - len(question.tail)
        return ids[: self._sinks] + self._passages.found(list(question.tail), room)

    def how(self) -> dict[str, Any]:
        return super().how() | {"visible": self._budget}


def nats(logits: Tensor, question: Question) -> float:
    """Return the mean negative log-likelihood of a question's answer, from logits (n, V)."""
    right = torch.tensor(question.answer)[:, None]
    return float(-logits.float().log_softmax(-1).gather(1, right).mean())
