"""Prediction files: one JSON object per line, in the project's own form or a published one.

The project's rows have `id, index, dataset, pred, answers, all_classes, length, token_length,
seconds, memory` and, if a sample failed, `error`. InfLLM's published rows have no id; their
position in the file, from 0, is used instead. InfiniteBench's rows have `id, prediction,
ground_truth`, in files named ``preds_<task>.jsonl``.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from inf_llm.errors import InfLLMError

_PREDICTION_KEYS = ("pred", "prediction")
_ANSWER_KEYS = ("answers", "ground_truth", "label")


class PredictionError(InfLLMError, ValueError):
    """A prediction file or folder is malformed; the message names the file and the line or row."""


@dataclass(frozen=True)
class Row:
    """One prediction with its label.

    Attributes:
        id: the sample's id within its task, as text.
        prediction: the model's answer; "" if the sample failed.
        answers: the label, in the benchmark's own form.
        classes: class names of a classification task.
        length: the sample's own length field (words), if it has one.
        error: error message of a failed sample, or None.
        fields: the row as it was read.
    """

    id: str
    prediction: str
    answers: Any
    classes: tuple[str, ...] | None
    length: int | None
    error: str | None
    fields: Mapping[str, Any]


def complete_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield the numbered lines of a file that end with a line feed, without an incomplete last."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.endswith(b"\n"):
                yield number, line


def read_objects(
    path: Path, error: type[InfLLMError] = PredictionError, torn: bool = True
) -> list[dict[str, Any]]:
    """Return the JSON objects of a file with one object per line.

    Args:
        path: the file.
        error: type of the error to raise for a line that is not a JSON object.
        torn: whether to ignore a last line without a line feed that is not JSON.
    """
    objects = []
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as problem:
            if torn and number == len(lines):
                break  # a run is writing this line, or was killed while writing it
            raise error(f"{path}, line {number} is not JSON: {json_reason(problem)}") from problem
        if not isinstance(value, dict):
            raise error(
                f"{path}, line {number} is a JSON {type(value).__name__}: one object is expected"
            )
        objects.append(value)
    return objects


def json_reason(error: Exception) -> str:
    """Return why a line is not JSON, without the line number that counts within this line."""
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg}, column {error.colno}"
    return "it is nested too deeply" if isinstance(error, RecursionError) else str(error)


def read_rows(paths: Sequence[Path]) -> list[Row]:
    """Return the predictions of one task, from one file or from the parts of several processes.

    A failed sample may have been done again. Of the project's rows with the same id, the last one
    without an error is kept, or the last one if all have errors. Of published files every row is
    kept, as their scorers do.
    """
    rows: dict[str, Row] = {}
    for path in paths:
        for index, fields in enumerate(read_objects(path)):
            row = _row(fields, index, path)
            held = rows.get(row.id)
            if held is not None and "pred" not in fields:
                row = replace(row, id=f"{row.id}, row {index + 1}")
            if held is None or row.id != held.id or row.error is None or held.error is not None:
                rows[row.id] = row
    return list(rows.values())


def task_files(folder: Path) -> dict[str, list[Path]]:
    """Return the prediction files of each task in a folder, sorted by task name.

    Raises:
        PredictionError: no such folder, no prediction in the folder, or two files for one task.
    """
    if not folder.is_dir():
        raise PredictionError(f"{folder} is not a folder: give one with <task>.jsonl files")
    files: dict[str, list[Path]] = {}
    for path in sorted([*folder.glob("*.jsonl"), *folder.glob("*.jsonl.*-of-*")]):
        task = path.name.split(".jsonl")[0].removeprefix("preds_")
        files.setdefault(task, []).append(path)
    for paths in files.values():
        whole = [path.name for path in paths if path.suffix == ".jsonl"]
        if len(whole) > 1:
            raise PredictionError(f"{' and '.join(whole)} in {folder} are one task")
    if not files:
        raise PredictionError(
            f"{folder} holds no predictions: <task>.jsonl or preds_<task>.jsonl is expected"
        )
    return dict(sorted(files.items()))


def class_names(value: Any) -> tuple[str, ...] | None:
    """Return class names from a list, or from a list as Python text as in some LongBench copies.

    Raises:
        ValueError: the value is neither.
    """
    if isinstance(value, str):
        try:
            value = ast.literal_eval(value) if value.strip() else None
        except (SyntaxError, MemoryError, RecursionError) as error:
            raise ValueError(f"all_classes {value[:60]!r} is no list") from error
    if value is not None and not isinstance(value, (list, tuple)):
        raise ValueError(f"all_classes {value!r} is no list")
    return None if value is None else tuple(str(name) for name in value)


def _row(fields: Mapping[str, Any], index: int, path: Path) -> Row:
    error = fields.get("error")
    prediction = _first(fields, _PREDICTION_KEYS)
    answers = _first(fields, _ANSWER_KEYS)
    if error is None and not any(key in fields for key in _PREDICTION_KEYS):
        raise PredictionError(_lacks(path, index, fields, _PREDICTION_KEYS))
    if error is None and answers is None:
        raise PredictionError(_lacks(path, index, fields, _ANSWER_KEYS))
    try:
        classes = class_names(fields.get("all_classes"))
    except ValueError as problem:
        raise PredictionError(f"{path}, row {index + 1}: {problem}") from problem
    return Row(
        id=str(fields.get("id", index)),
        prediction="" if prediction is None else str(prediction),
        answers=answers,
        classes=classes,
        length=fields.get("length"),
        error=None if error is None else str(error),
        fields=fields,
    )


def _first(fields: Mapping[str, Any], keys: tuple[str, ...]) -> Any:
    return next((fields[key] for key in keys if fields.get(key) is not None), None)


def _lacks(path: Path, index: int, fields: Mapping[str, Any], keys: tuple[str, ...]) -> str:
    return (
        f"{path}, row {index + 1} has no {' or '.join(map(repr, keys))}; "
        f"its keys are: {', '.join(fields) or 'none'}"
    )
