"""Measure one job in its own process: read a job as JSON, write one event per line as JSON.

The events are `ready` when the model is loaded, `first` at the first token of the first answer,
and `done` at the end, with all other figures.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmark.beside.base import Refused, Subject
from benchmark.beside.job import Job
from benchmark.beside.subjects import make
from benchmark.timing.arguments import set_threads
from inf_llm.errors import InfLLMError
from inf_llm.fidelity.tasks import Question
from inf_llm.needles import exact_match

Tell = Callable[[str, dict[str, Any]], None]


def measure(subject: Subject, job: Job, tell: Tell) -> None:
    """Ask all questions of a job in turn, and send the figures as events through `tell`."""
    subject.warm_up()
    tell("ready", {"how": subject.how()})
    answers = []
    for number, question in enumerate(job.context.questions):
        answers.append(_timed(subject, job, question, tell if number == 0 else _silent))
    texts = [subject.text(answer.ids).strip() for answer in answers]
    figures: dict[str, Any] = {"peak": subject.peak(), "said": texts}
    first, *others = answers
    figures |= {"decode": statistics.median(first.seconds[1:]), "decode_cpu": first.per_token}
    if others:
        figures["second"] = statistics.median(answer.seconds[0] for answer in others)
        figures["second_cpu"] = statistics.median(answer.until_first for answer in others)
    figures["nats"] = [subject.likelihood(question) for question in job.context.questions]
    figures["found"] = [
        exact_match("contains_any", text, (question.text,))
        for text, question in zip(texts, job.context.questions, strict=True)
    ]
    tell("done", figures)


@dataclass
class Timed:
    """An answer with its times.

    Attributes:
        ids: token ids of the answer.
        seconds: time for each of the tokens.
        used: processor seconds of the program so far: before the answer, at its first token, and
            at its last token.
    """

    ids: list[int]
    seconds: list[float]
    used: list[float]

    @property
    def until_first(self) -> float:
        """Processor seconds for the first token."""
        return self.used[1] - self.used[0]

    @property
    def per_token(self) -> float:
        """Processor seconds per token after the first."""
        return (self.used[-1] - self.used[1]) / (len(self.ids) - 1)


def _timed(subject: Subject, job: Job, question: Question, tell: Tell) -> Timed:
    answer = Timed([], [], [subject.seconds()])
    before = time.perf_counter()
    for token in subject.ask(question, job.length(question)):
        answer.seconds.append(time.perf_counter() - before)
        answer.ids.append(token)
        if len(answer.ids) == 1:
            answer.used.append(subject.seconds())
            tell("first", {"first": answer.seconds[0], "first_cpu": answer.until_first})
        before = time.perf_counter()
    answer.used.append(subject.seconds())
    return answer


def _silent(event: str, figures: dict[str, Any]) -> None:
    """Ignore the events of the answers after the first."""


def main() -> None:
    """Measure the job from standard input; redirect other output to standard error."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def tell(event: str, figures: dict[str, Any]) -> None:
        print(json.dumps({"event": event, **figures}), file=out, flush=True)

    job = Job.parse(sys.stdin.readline())
    subject = None
    try:
        set_threads(job.threads)
        subject = make(job)
        measure(subject, job, tell)
    except Refused as refused:
        tell("done", {"refused": str(refused)})
    except InfLLMError as error:
        tell("done", {"error": str(error)})
    finally:
        if subject is not None:
            subject.close()


if __name__ == "__main__":
    main()
