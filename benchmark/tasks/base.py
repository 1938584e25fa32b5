"""The interface between a benchmark and the harness: names, data, prompts, limits, and a metric."""

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
    """A file of a benchmark is absent or malformed; the message names the file."""


@dataclass(frozen=True)
class Prompt:
    """A prompt in two parts: the text up to the end of the document, and the question about it.

    `special_tokens` is true if the tokenizer must add its start token. It is false if a chat
    template has already written the start token.
    """

    document: str
    question: str
    special_tokens: bool = True

    @property
    def text(self) -> str:
        """Both parts joined, as the model reads them."""
        return self.document + self.question


@dataclass(frozen=True)
class Instance:
    """One question of a task.

    Attributes:
        id: unique within the task.
        prompt: the prompt, before any chat template.
        answers: the label in the benchmark's own form; it can be written as JSON.
        classes: class names of a classification task.
        length: the length of the sample in words, as the benchmark states it; None if it does not.
        index: number of the sample in the task, by which rows of several processes are sorted.
    """

    id: str
    prompt: Prompt
    answers: Any
    classes: tuple[str, ...] | None = None
    length: int | None = None
    index: int = 0


@dataclass(frozen=True)
class TaskInfo:
    """The generation settings of a task.

    Attributes:
        max_new_tokens: the official limit of an answer.
        chat: whether the prompt is a request, for which a chat template is right. It is wrong for
            a prompt that the model continues (few-shot examples, code).
        stop: texts that end an answer.
    """

    max_new_tokens: int
    chat: bool = True
    stop: tuple[str, ...] = ()


@dataclass(frozen=True)
class Source:
    """The source of samples: data folder, prompt set, and settings of generated samples.

    Attributes:
        folder: the data folder.
        prompts: name of the prompt set, one of the benchmark's `prompt_sets`.
        tokenizer: tokenizer that measures the length of generated samples.
        samples: number of samples of a generated task.
        seed: seed of generated samples.
        haystack: a text file to hide needles in; None for noise sentences.
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
        skip_first_number: drop the first number of a Math.Calc answer, as the official scorer does
            for GPT-4.
    """

    similarity: str = "difflib"
    skip_first_number: bool = False


class Benchmark(ABC):
    """A family of tasks that share loading and scoring; one line in the registry adds one."""

    name: str
    # The prompt sets of the benchmark, the default first.
    prompt_sets: tuple[str, ...] = ("official",)

    def prompt_set(self, chosen: str | None) -> str:
        """Return the chosen prompt set if this benchmark has it, otherwise the default set."""
        return chosen if chosen in self.prompt_sets else self.prompt_sets[0]

    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """Return the names of the tasks; generated tasks without their ``@length``."""

    def owns(self, task: str) -> bool:
        """Return whether the task belongs to this benchmark."""
        return task in self.names()

    @abstractmethod
    def info(self, task: str, source: Source | None = None) -> TaskInfo:
        """Return the limits of a task; files in the folder of `source` may override them."""

    @abstractmethod
    def load(self, task: str, source: Source) -> list[Instance]:
        """Return the samples of a task, with rendered prompts.

        Raises:
            DataError: a file is absent or malformed.
        """

    @abstractmethod
    def score(self, task: str, row: Row, options: ScoreOptions) -> float:
        """Return the official score of one prediction, 0 to 1."""


def render(template: str, fields: Mapping[str, Any], document: str = "context") -> Prompt:
    """Fill a template, and split it after the last field named `document`.

    Only named fields are filled in. A template without the document becomes the question.

    Raises:
        DataError: the template is malformed, or names a field that `fields` lacks.
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
    """Return the instances that `make` builds from each object of a data file and its number.

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
    """Return the JSON object that a file contains.

    Raises:
        DataError: the file does not contain one JSON object.
    """
    try:
        table = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON: {json_reason(error)}") from error
    if not isinstance(table, dict):
        raise DataError(f"{path} is a JSON {type(table).__name__}: one object is expected")
    return table


def find_file(folder: Path, subfolders: tuple[str, ...], name: str, fetch: str) -> Path:
    """Return the first ``folder/subfolder/name`` that exists.

    Raises:
        DataError: no such file; the message lists the paths and ends with the advice in `fetch`.
    """
    places = [folder / sub / name for sub in subfolders]
    for place in places:
        if place.is_file():
            return place
    looked = ", ".join(str(place) for place in places)
    raise DataError(f"{name} is not there; looked for {looked}. {fetch}")


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file, by which the record of a run identifies its data."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
