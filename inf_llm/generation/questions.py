"""Questions from a JSONL file, and their answers in another file that later runs can continue.

A line of the questions file is a JSON text, or an object with a "question". The other keys of the
object are copied to the answer, so none of them may have the name of a key of an answer.
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

_WRITTEN = "index", "answer", "about"
"""Keys of an answer, which no question may have."""


@dataclass(frozen=True)
class Question:
    """One line of a questions file.

    Attributes:
        text: the text of the question.
        beside: the other keys and values of the object.
    """

    text: str
    beside: dict[str, Any]


def read_questions(path: Path) -> list[Question]:
    """Return the questions of a file.

    Raises:
        TextError: the file cannot be read or has no questions, or a line is invalid; the message
            names the line.
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
        data = json.loads(line)
    except (ValueError, RecursionError):
        raise TextError(f"{where}: is not JSON: write a text in quotes, or an object") from None
    if isinstance(data, str):
        data = {"question": data}
    if not isinstance(data, dict) or not isinstance(data.get("question"), str):
        raise TextError(f'{where}: has no question: write {{"question": "..."}}')
    check_question(where, data["question"])
    taken = [key for key in _WRITTEN if key in data]
    if taken:
        raise TextError(
            f"{where}: {taken[0]!r} is a key that is written with the answer: give it another name"
        )
    return Question(data.pop("question"), data)


class Answers:
    """A file with one line for each answered question, in any order; made by `answering`.

    Args:
        path: path of the file.
        questions: the questions to answer.
        about: identifier of the text, model and settings. Only a file with the same identifier is
            continued.

    Attributes:
        done: numbers of the answered questions, from 0.
    """

    def __init__(self, path: Path, questions: Sequence[Question], about: str) -> None:
        self._path, self._questions, self._about = path, questions, about
        self.done: set[int] = set()
        whole = 0
        for number, line in enumerate(self._held().split(b"\n")[:-1], 1):
            self.done.add(self._index(number, line))
            whole += len(line) + 1
        if path.exists():
            os.truncate(path, whole)  # the question of an incomplete line is asked again

    def _held(self) -> bytes:
        if not self._path.exists():
            return b""
        try:
            with self._path.open("r+b") as file:
                return file.read()
        except OSError as error:
            raise TextError(f"{self._path}: cannot be written: {error.strerror or error}") from None

    def _index(self, number: int, line: bytes) -> int:
        try:
            data = json.loads(line)
            index, question = data["index"], data["question"]
            fits = self._questions[index].text == question and index not in self.done
        except (ValueError, KeyError, TypeError, IndexError):
            fits = False
        what = "is no answer to one of these questions"
        if fits and data.get("about") == self._about:
            return int(index)
        if fits:
            what = "was answered about another text, or by another model or other settings"
        raise TextError(
            f"{self._path}, line {number}: {what}: write the answers to another file (--answers)"
        )

    def left(self) -> list[tuple[int, Question]]:
        """Return the questions without an answer, with their numbers."""
        return [(at, each) for at, each in enumerate(self._questions) if at not in self.done]

    def add(self, index: int, answer: str) -> None:
        """Append an answer to the file, and wait until it is on the disk."""
        question = self._questions[index]
        row = {"index": index, "question": question.text, "answer": answer, **question.beside}
        row["about"] = self._about
        with self._path.open("ab") as file:
            file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self.done.add(index)


@contextmanager
def answering(path: Path, questions: Sequence[Question], about: str) -> Iterator[Answers]:
    """Open a file of answers and lock it for this process; arguments as for `Answers`.

    Raises:
        TextError: the file is in use, cannot be written, or has answers to other questions or with
            another `about`.
    """
    lock = FileLock(path.with_name(f"{path.name}.lock"), timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise TextError(f"{path}: another process is writing answers to it") from None
    except OSError as error:
        raise TextError(f"{path}: cannot be written: {error.strerror or error}") from None
    try:
        yield Answers(path, questions, about)
    finally:
        lock.release()
