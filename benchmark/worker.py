"""Answer all questions of a document: read the document once, fork it for each question.

A question that fails gives a row with its error. The questions after it are still asked.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmark.engine import Engine, Reader
from benchmark.prompts import PromptRules, PromptTokens, lay_out, tokenize
from benchmark.tasks.base import Instance, TaskInfo
from inf_llm.errors import reason


@dataclass(frozen=True)
class Job:
    """Questions about one document, and the limits of their task.

    `shared` is true if the document has other questions too, answered or not. The answer then
    comes from a fork, so that a resumed run feeds each sample exactly as an uninterrupted run does.
    """

    task: str
    info: TaskInfo
    instances: tuple[Instance, ...]
    shared: bool = False


def group(task: str, info: TaskInfo, instances: Sequence[Instance]) -> list[Job]:
    """Return one job for each document, in the order of the documents' first questions."""
    by_document: dict[str, list[Instance]] = {}
    for instance in instances:
        # Prompts without a document share no tokens, so each of them is a job.
        key = instance.prompt.document or f"\0{instance.id}"
        by_document.setdefault(key, []).append(instance)
    return [Job(task, info, tuple(qs), shared=len(qs) > 1) for qs in by_document.values()]


class Worker:
    """One loaded model that runs jobs."""

    def __init__(self, engine: Engine, rules: PromptRules) -> None:
        self.engine = engine
        self.rules = rules
        self._document: tuple[int, ...] | None = None
        self._reader: Reader | None = None

    def rows(self, job: Job) -> Iterator[dict[str, Any]]:
        """Yield one row for each question as soon as it is answered."""
        self._forget()
        for instance in job.instances:
            started = time.perf_counter()
            try:
                result = self._answer(job, instance)
            except Exception as error:  # one failed sample must not end a run that takes days
                self._forget()
                self.engine.recover()
                failure = f"{type(error).__name__}: {reason(error)}"
                result = {"pred": "", "error": failure, "memory": {}}
            result["seconds"] = round(time.perf_counter() - started, 3)
            yield _row(job.task, instance, result)
        self._forget()

    def _answer(self, job: Job, instance: Instance) -> dict[str, Any]:
        tokens = self._tokens(job, instance)
        started = time.perf_counter()
        base = self._read(tokens.document)
        read = time.perf_counter() - started
        reader = base.fork() if job.shared else base
        if not job.shared:
            self._forget()
        text = reader.ask(tokens.question, job.info.max_new_tokens, job.info.stop)
        result: dict[str, Any] = {"pred": text, "token_length": len(tokens)}
        if tokens.truncated_from is not None:
            result["truncated_from"] = tokens.truncated_from
        return result | {"read_seconds": round(read, 3), "memory": plain(reader.stats())}

    def _tokens(self, job: Job, instance: Instance) -> PromptTokens:
        prompt, tokenizer = instance.prompt, self.engine.tokenizer
        if job.info.chat:
            prompt = lay_out(prompt, tokenizer, self.rules.conv_type)
        budget = self.rules.max_len - job.info.max_new_tokens
        return tokenize(prompt, tokenizer, budget, self.rules.truncation)

    def _read(self, document: tuple[int, ...]) -> Reader:
        """Return a reader of the document: the last reader if its document is the same."""
        if self._reader is None or self._document != document:
            self._forget()
            reader = self.engine.open()
            if document:
                reader.read(document)
            self._reader, self._document = reader, document
        return self._reader

    def _forget(self) -> None:
        """Release the last document before the next one is read: memory may not hold two."""
        self._reader = self._document = None


def plain(stats: Mapping[str, Any]) -> dict[str, Any]:
    """Return statistics as JSON, without times, which would differ between equal runs."""
    return {
        key: plain(value) if isinstance(value, Mapping) else value
        for key, value in stats.items()
        if isinstance(value, (Mapping, int, float, str)) and "second" not in key
    }


def _row(task: str, instance: Instance, result: Mapping[str, Any]) -> dict[str, Any]:
    row = {
        "id": instance.id,
        "index": instance.index,
        "dataset": task,
        "pred": result["pred"],
        "answers": instance.answers,
        "all_classes": None if instance.classes is None else list(instance.classes),
        "length": instance.length,
        "token_length": result.get("token_length"),
    }
    for key in ("truncated_from", "error", "read_seconds", "seconds", "memory"):
        if key in result:
            row[key] = result[key]
    return row
