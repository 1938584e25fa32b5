"""What a benchmark is to the harness: names, data, prompts, limits, and a metric."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Formatter
from typing import Any

from benchmark.rows import Row, json_reason, read_objects
from inf_llm.errors import InfLLMError


class DataError(InfLLMError, ValueError):
    """A benchmark's file is absent or malformed; the message says where it was looked for."""


@dataclass(frozen=True)
class Prompt:
    """A prompt in two parts: up to the end of the document, and what is asked about it.

    `special_tokens` says whether the tokenizer adds its start token; a chat template holds it.
    """

    document: str
    question: str
    special_tokens: bool = True

    @property
    def text(self) -> str:
        """Both parts, as the model reads them."""
        return self.document + self.question


@dataclass(frozen=True)
class Instance:
    """One question of a task.

    Attributes:
        id: unique within the task.
        prompt: what the model reads, before any chat template.
        answers: the label in the benchmark's own form, JSON-able.
        classes: class names of a classification task.
        length: the benchmark's own length of the sample, in words; None where it has none.
        index: its place in the task, by which rows of several processes are put in order.
    """

    id: str
    prompt: Prompt
    answers: Any
    classes: tuple[str, ...] | None = None
    length: int | None = None
    index: int = 0


@dataclass(frozen=True)
class TaskInfo:
    """What a task needs of the model's side.

    Attributes:
        max_new_tokens: the official limit of an answer.
        chat: whether its prompt is a request, which a chat template suits; a prompt that the
            model is to continue (few-shot examples, code) is spoilt by one.
        stop: texts that end an answer.
    """

    max_new_tokens: int
    chat: bool = True
    stop: tuple[str, ...] = ()


@dataclass(frozen=True)
class Source:
    """Where samples come from and how they are worded.

    Attributes:
        folder: the data folder.
        prompts: name of the prompt set, one of the benchmark's `prompt_sets`.
        tokenizer: measures generated samples.
        samples: how many samples a generated task has.
        seed: of generated samples.
        haystack: a text file to hide needles in; noise sentences where it is None.
    """

    folder: Path
    prompts: str
    tokenizer: Any = None
    samples: int = 50
    seed: int = 0
    haystack: Path | None = None


@dataclass(frozen=True)
class ScoreOptions:
    """Options of the metrics.

    Attributes:
        similarity: "difflib" (official) or "rapidfuzz" for LongBench's code tasks.
        skip_first_number: drop the first number of a Math.Calc answer, as officially for GPT-4.
    """

    similarity: str = "difflib"
    skip_first_number: bool = False


class Benchmark(ABC):
    """A family of tasks with one way of loading and scoring; a new one is one registry line."""

    name: str
    # The prompt sets it knows, the default first.
    prompt_sets: tuple[str, ...] = ("official",)

    def prompt_set(self, chosen: str | None) -> str:
        """The chosen set where this benchmark knows it, else its default."""
        return chosen if chosen in self.prompt_sets else self.prompt_sets[0]

    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """The tasks; generated ones without their ``@length``."""

    def owns(self, task: str) -> bool:
        """Whether the task is one of this benchmark's."""
        return task in self.names()

    @abstractmethod
    def info(self, task: str, source: Source | None = None) -> TaskInfo:
        """Limits of a task; `source` may overrule them with the benchmark's own files."""

    @abstractmethod
    def load(self, task: str, source: Source) -> list[Instance]:
        """The samples of a task, prompts rendered.

        Raises:
            DataError: the files are not there.
        """

    @abstractmethod
    def score(self, task: str, row: Row, options: ScoreOptions) -> float:
        """The official score of one prediction, 0 to 1."""


def render(template: str, fields: Mapping[str, Any], document: str = "context") -> Prompt:
    """A filled template, cut behind its last ``{context}``.

    Only named fields are filled in; a template without the document is all question.
    """
    done, rest = "", ""
    try:
        parts = list(Formatter().parse(template))
    except ValueError as error:
        raise DataError(f"the prompt template is malformed: {error}") from error
    for literal, name, _, _ in parts:
        rest += literal
        if name is None:
            continue
        if name not in fields:
            raise DataError(
                f"the prompt template asks for {{{name}}}, which the sample does not have; "
                f"it has: {', '.join(fields)}"
            )
        rest += str(fields[name])
        if name == document:
            done, rest = done + rest, ""
    return Prompt(done, rest)


def read_samples(path: Path, make: Callable[[dict[str, Any], int], Instance]) -> list[Instance]:
    """The instances that `make` makes of a data file's objects and their numbers.

    Raises:
        DataError: a line is not a JSON object, or lacks what the task needs.
    """
    instances = []
    for index, fields in enumerate(read_objects(path, DataError, torn=False)):
        try:
            instances.append(make(fields, index))
        except DataError as error:
            raise DataError(f"{path}, sample {index + 1}: {error}") from error
        except KeyError as error:
            held = ", ".join(fields) or "nothing"
            raise DataError(f"{path}, sample {index + 1} lacks {error}; it has: {held}") from error
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise DataError(f"{path}, sample {index + 1} is malformed: {error}") from error
    return instances


def read_table(path: Path) -> dict[str, Any]:
    """The JSON object that is a whole file.

    Raises:
        DataError: it is none.
    """
    try:
        table = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON: {json_reason(error)}") from error
    if not isinstance(table, dict):
        raise DataError(f"{path} is a JSON {type(table).__name__}: one object is expected")
    return table


def find_file(folder: Path, subfolders: tuple[str, ...], name: str, fetch: str) -> Path:
    """The first ``folder/subfolder/name`` that exists.

    Raises:
        DataError: none does; the message lists the places and says how to `fetch` it.
    """
    places = [folder / sub / name for sub in subfolders]
    for place in places:
        if place.is_file():
            return place
    looked = ", ".join(str(place) for place in places)
    raise DataError(f"{name} is not there; looked for {looked}. {fetch}")


def file_digest(path: Path) -> str:
    """SHA-256 of a file, so that a run's record can say which data it saw."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
