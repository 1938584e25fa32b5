"""Answers in generation: each is a row of the batch, with its tokens, text and token reports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch

from inf_llm.generation import Session
from inf_llm.generation.calls import Call, CallReader
from inf_llm.generation.decoding import Decoding
from inf_llm.generation.ends import Ended
from inf_llm.generation.grammar import Constraint
from inf_llm.generation.likelihood import Scored, scored
from inf_llm.generation.options import answer_options
from inf_llm.generation.penalties import AnswerPenalties
from inf_llm.generation.spelling import Spelling
from inf_llm.generation.text import AnswerText
from inf_llm.hf.decoder import device_of
from inf_llm.serve.answers import Choice, Delta
from inf_llm.serve.intake import Ready
from inf_llm.serve.logprobs import Report
from inf_llm.serve.params import Question
from inf_llm.serve.sampling import Sampling
from inf_llm.serve.worker import Job


@dataclass(frozen=True)
class Beginning:
    """The repeated prompt (`echo`) at the beginning of each of its answers.

    Attributes:
        text: the text of the prompt; empty if it is not repeated.
        tokens: the scored tokens of the prompt; empty if they are not reported.
        offsets: start of each token in the text, in characters; None if not known.
    """

    text: str = ""
    tokens: Sequence[Scored] = ()
    offsets: Sequence[int] | None = None


@dataclass
class Answer:
    """The text and the token report of one answer in generation.

    Attributes:
        index: number of the answer within the request.
        job: the job that gets the answer's events.
        begins: the repeated prompt before the answer.
        report: log-likelihoods of the tokens; None if they are not requested.
    """

    index: int
    job: Job
    begins: Beginning
    report: Report | None
    text: str = field(init=False)
    tokens: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.text = self.begins.text
        if self.report is not None:
            self.report.begin(self.begins.tokens, self.begins.offsets, len(self.text))
        if self.text:
            self._emit(self.text)

    def say(self, piece: str) -> None:
        """Append a piece of text and emit it."""
        self.text += piece
        self._emit(piece)

    def finish(
        self, reason: str, passages: list[dict[str, Any]] | None, calls: Sequence[Call] = ()
    ) -> Choice:
        """Emit and return the complete answer."""
        reported = None if self.report is None else tuple(self.report.tokens)
        if self.report is not None and self.report.waiting:
            self._emit("")
        choice = Choice(
            self.index, self.text, reason, self.tokens, passages, reported, tuple(calls)
        )
        self.job.emit(choice)
        return choice

    def _emit(self, piece: str) -> None:
        new = () if self.report is None else self.report.take()
        self.job.emit(Delta(self.index, piece, new))


@dataclass
class Row:
    """One row of the batch, which generates one answer.

    Attributes:
        answer: collects the text and the token report.
        decoding: chooses the tokens.
        text: decodes the tokens to text.
        ends: tokens that end the answer.
        constraint: restricts the tokens to a grammar; None for any text.
        reader: separates text and function calls; None if no function may be called.
    """

    answer: Answer
    decoding: Decoding
    text: AnswerText
    ends: Sequence[int]
    constraint: Constraint | None = None
    reader: CallReader | None = None

    def finish(self, passages: list[dict[str, Any]] | None) -> Choice:
        """Finish the answer and return it."""
        ended = self.text.stopped or self.decoding.new[-1] in self.ends
        if self.constraint is not None:
            ended = not self.constraint.closed and (ended or self.constraint.complete)
        self.answer.tokens = self.text.tokens
        left, calls = ("", []) if self.reader is None else self.reader.end()
        if left:
            self.answer.say(left)
        return self.answer.finish("stop" if ended else "length", passages, calls)


@dataclass
class Rows:
    """Makes the rows of requests.

    Attributes:
        model: the model, patched or not.
        tokenizer: the model's tokenizer.
        ends: tokens that end an answer.
        recalls: whether the model's attention retrieves memory blocks, which can be traced.
    """

    model: Any
    tokenizer: Any
    ends: Sequence[int]
    recalls: bool

    @cached_property
    def _spelling(self) -> Spelling:
        return Spelling(self.tokenizer)

    def answer(self, question: Question, index: int, begins: Beginning, job: Job) -> Answer:
        """Make an answer that has only its beginning so far."""
        report = None if question.logprobs is None else Report(self._spelling)
        return Answer(index, job, begins, report)

    def row(
        self, question: Question, ready: Ready, answer: Answer, session: Session, number: int
    ) -> Row:
        """Make the row that continues a session.

        Args:
            question: the request.
            ready: the prompt.
            answer: collects the text of the row.
            session: a session that has read the prompt.
            number: number of the answer among the answers to this prompt, for its seed.
        """
        sampling, shape, report = question.sampling, ready.shape, answer.report
        constraint, reader = shape.constraint(len(session.ids), ready.longest), shape.reader()

        def put(piece: str) -> None:
            words = piece if reader is None else reader.put(piece)
            if words:
                answer.say(words)

        text = AnswerText(self.tokenizer, sampling.stop, put, reader is not None, shape.without)

        def note(logits: torch.Tensor, token: int) -> None:
            if report is not None:
                report.add(*scored(logits, [token], question.logprobs or 0))

        decoding = Decoding(
            session,
            self._options(sampling, ready.longest, len(session.ids), constraint),
            text,
            self._generator(sampling, number),
            traced=question.recall and self.recalls,
            noted=None if report is None else note,
        )
        ends = () if sampling.ignore_eos else self.ends
        return Row(answer, decoding, text, ends, constraint, reader)

    def _options(
        self, sampling: Sampling, longest: int, prompt: int, constraint: Constraint | None
    ) -> dict[str, Any]:
        """Return the keywords of `generate` for an answer to a prompt of `prompt` tokens."""
        ends = None if sampling.ignore_eos else list(self.ends) or None
        keywords = sampling.keywords(longest) | {"eos_token_id": ends}
        options = answer_options(self.model, self.tokenizer, longest, keywords)
        processors: list[Any] = []
        criteria: list[Any] = []
        if sampling.stop:
            criteria.append(Ended(self.tokenizer, sampling.stop, None, prompt))
        if sampling.penalizes:
            penalties = sampling.frequency_penalty, sampling.presence_penalty
            processors.append(AnswerPenalties(prompt, *penalties))
        if constraint is not None:
            processors.append(constraint)
            criteria.append(constraint.over)
        return options | {"logits_processor": processors, "stopping_criteria": criteria}

    def _generator(self, sampling: Sampling, number: int) -> torch.Generator | None:
        seed = sampling.seed_of(number)
        return None if seed is None else torch.Generator(device_of(self.model)).manual_seed(seed)
