"""Questions from a JSONL file, and their answers in another, which can be gone on with.

A line of questions is a text, or an object with a "question"; its other keys stand beside the
answer too.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from inf_llm.checks import check_question
from inf_llm.errors import TextError


@dataclass(frozen=True)
class Question:
    """One line.

    Attributes:
        text: what is asked.
        beside: the other keys of its object.
    """

    text: str
    beside: dict[str, Any]


def read_questions(path: Path) -> list[Question]:
    """The questions of a file.

    Raises:
        TextError: it cannot be read, or has none; the message names the line that is wrong.
    """
    lines = _lines(path)
    questions = [_question(f"{path}, line {n}", line) for n, line in lines if line.strip()]
    if not questions:
        raise TextError(f"{path}: has no questions: one JSON text or object a line is needed")
    return questions


def _lines(path: Path) -> list[tuple[int, str]]:
    try:
        return list(enumerate(path.read_text(encoding="utf-8-sig").split("\n"), 1))
    except OSError as error:
        raise TextError(f"{path}: cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise TextError(f"{path}: is not text in UTF-8") from None


def _question(where: str, line: str) -> Question:
    try:
        said = json.loads(line)
    except (ValueError, RecursionError):
        raise TextError(f"{where}: is not JSON: write a text in quotes, or an object") from None
    if isinstance(said, str):
        said = {"question": said}
    if not isinstance(said, dict) or not isinstance(said.get("question"), str):
        raise TextError(f'{where}: has no question: write {{"question": "..."}}')
    check_question(where, said["question"])
    return Question(said.pop("question"), said)


class Answers:
    """A file with a line for each question that is answered, in any order; made by `answering`.

    Attributes:
        done: numbers of the questions that are answered, from 0.
    """

    def __init__(self, path: Path, questions: Sequence[Question]) -> None:
        self._path, self._questions = path, questions
        self.done: set[int] = set()
        whole = 0
        for number, line in enumerate(self._held().split(b"\n")[:-1], 1):
            self.done.add(self._index(number, line))
            whole += len(line) + 1
        if path.exists():
            os.truncate(path, whole)  # a line that was not written to its end is asked again

    def _held(self) -> bytes:
        return self._path.read_bytes() if self._path.exists() else b""

    def _index(self, number: int, line: bytes) -> int:
        try:
            said = json.loads(line)
            index, question = said["index"], said["question"]
            if self._questions[index].text == question and index not in self.done:
                return int(index)
        except (ValueError, KeyError, TypeError, IndexError):
            pass
        raise TextError(
            f"{self._path}, line {number}: is no answer to one of these questions: write the "
            "answers to another file"
        )

    def left(self) -> list[tuple[int, Question]]:
        """The questions that have no answer yet, with their numbers."""
        return [(at, each) for at, each in enumerate(self._questions) if at not in self.done]

    def add(self, index: int, answer: str) -> None:
        """Write an answer, and wait until it is on the disk."""
        question = self._questions[index]
        row = {"index": index, "question": question.text, "answer": answer, **question.beside}
        with self._path.open("ab") as file:
            file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self.done.add(index)


@contextmanager
def answering(path: Path, questions: Sequence[Question]) -> Iterator[Answers]:
    """The answers in a file, for one process.

    Raises:
        TextError: the file is in use, cannot be written, or answers other questions.
    """
    lock = FileLock(path.with_name(f"{path.name}.lock"), timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise TextError(f"{path}: another process is writing answers to it") from None
    except OSError as error:
        raise TextError(f"{path}: cannot be written: {error.strerror or error}") from None
    try:
        yield Answers(path, questions)
    finally:
        lock.release()
