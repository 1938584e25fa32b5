"""The folder of a run: a record of its settings, and the rows that are done.

`run.json` holds the configuration, the prompt rules and, per task, the data's digest. A run with
other settings is refused, because rows of two settings must not be mixed in one file.

A row is one line, written at once and synced to the disk. If a killed process leaves an incomplete
last line, that line is cut off and its sample is done again. No row is lost or written twice.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from benchmark.rows import complete_lines
from inf_llm.atomic import sync_folder, write_atomically
from inf_llm.errors import InfLLMError
from inf_llm.processor import machine

RECORD = "run.json"
_COMPARED = ("config", "rules", "generation")


class RunFolderError(InfLLMError, ValueError):
    """A folder cannot hold the rows of this run; the message says why and what to do."""


def claim(folder: Path, settings: Mapping[str, Any], tasks: Mapping[str, Any]) -> None:
    """Write the record of the folder, or check the settings against it.

    Args:
        folder: folder of the predictions; created if absent.
        settings: settings by section. A section that is compared must be equal for all rows of
            the folder. The record also names the machine of the first run.
        tasks: settings per task that must be equal for its rows; tasks may be added later.

    Raises:
        RunFolderError: the folder was made with other settings, or holds rows without a record.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _lock(folder / RECORD):
        path = folder / RECORD
        wanted = json.loads(json.dumps({**settings, "machine": machine(), "tasks": dict(tasks)}))
        if not path.exists():
            if any(folder.glob("*.jsonl*")):
                raise RunFolderError(
                    f"{folder} holds predictions but no {RECORD}: what made them is unknown. "
                    "Use an empty --output_dir_path"
                )
            write_atomically(path, _json(wanted))
            return
        held = _read_record(path)
        _refuse_changes(folder, held, wanted)
        held["tasks"] = {**held["tasks"], **wanted["tasks"]}
        write_atomically(path, _json(held))


def _read_record(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise RunFolderError(f"{path} is not JSON ({error}): use another folder") from error
    if not isinstance(record, dict) or not isinstance(record.get("tasks"), dict):
        raise RunFolderError(f"{path} was not written by this harness: use another folder")
    return record


def _refuse_changes(folder: Path, stored: Mapping[str, Any], requested: Mapping[str, Any]) -> None:
    before = {key: stored.get(key) for key in _COMPARED}
    now = {key: requested.get(key) for key in _COMPARED}
    shared = stored["tasks"].keys() & requested["tasks"].keys()
    before["tasks"] = {task: stored["tasks"][task] for task in shared}
    now["tasks"] = {task: requested["tasks"][task] for task in shared}
    old, new = flatten(before), flatten(now)
    changed = [key for key in sorted(old | new) if old.get(key) != new.get(key)]
    if changed:
        changes = "; ".join(f"{k} was {old.get(k)!r} and is now {new.get(k)!r}" for k in changed)
        raise RunFolderError(
            f"{folder} was made with other settings: {changes}. "
            "Use another --output_dir_path, or the settings it was made with"
        )


def flatten(tree: Mapping[str, Any], lead: str = "") -> dict[str, Any]:
    """Return nested settings by dotted name, without the leading `config.`."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{lead}.{key}" if lead else key
        name = name.removeprefix("config.")
        if isinstance(value, Mapping):
            flat |= flatten(value, name)
        else:
            flat[name] = value
    return flat


class RowFile:
    """The file of one task's rows, locked for one writer.

    Args:
        path: the file; created if absent.

    Raises:
        RunFolderError: another process is writing this file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = _lock(path)
        try:
            self._lock.acquire(timeout=0)
        except Timeout as error:
            raise RunFolderError(
                f"{path} is being written by another run: wait for it, or give each process "
                "its own --rank"
            ) from error
        self._file = path.open("ab")
        whole = sum(len(line) for _, line in complete_lines(path))
        self._file.truncate(whole)
        sync_folder(path.parent)

    def append(self, row: Mapping[str, Any]) -> None:
        """Write one row, and return when it is on the disk."""
        self._file.write(_line(row))
        self._file.flush()
        os.fsync(self._file.fileno())

    def __enter__(self) -> RowFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._lock.release()


def _lock(path: Path) -> FileLock:
    """Return the lock for writing a file of a run; the system frees it when a process ends."""
    locks = path.parent / ".locks"
    locks.mkdir(exist_ok=True)
    return FileLock(locks / path.name)


def _line(row: Mapping[str, Any]) -> bytes:
    """Return a row as a line of JSON; lone surrogates, which UTF-8 cannot encode, are escaped."""
    try:
        text = json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        text = json.dumps(row).encode()
    return text + b"\n"


def task_path(folder: Path, task: str, rank: int = 0, world_size: int = 1) -> Path:
    """Return the file for a task's rows: one part per process if there are several processes."""
    name = f"{task}.jsonl" if world_size == 1 else f"{task}.jsonl.{rank}-of-{world_size}"
    return folder / name


def parts(folder: Path, task: str) -> list[Path]:
    """Return the existing files of a task: the merged file first, then the parts of ranks."""
    return [p for p in [folder / f"{task}.jsonl"] if p.exists()] + sorted(
        folder.glob(f"{task}.jsonl.*-of-*")
    )


def rows_done(folder: Path, task: str) -> dict[str, dict[str, Any]]:
    """Return the rows written so far by all processes, by sample id.

    A failed sample may have been done again. Of rows with the same id, the last one without an
    error is kept, or the last one if all have errors.
    """
    rows: dict[str, dict[str, Any]] = {}
    for path in parts(folder, task):
        for number, line in complete_lines(path):
            row = _read_row(line, path, number)
            if "error" not in row or "error" in rows.get(row["id"], {"error": None}):
                rows[row["id"]] = row
    return rows


def _read_row(line: bytes, path: Path, number: int) -> dict[str, Any]:
    try:
        row = json.loads(line)
        if not isinstance(row["id"], str) or not isinstance(row["index"], int):
            raise ValueError("id and index are needed")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise RunFolderError(
            f"{path}, line {number} is no row of this harness: remove that line and run again"
        ) from error
    return dict(row)


def finish(folder: Path, task: str, wanted: Collection[str] | None = None) -> list[str]:
    """Merge the rows of a complete task into one file, in the order of the samples.

    Args:
        folder: the run's folder.
        task: the task's name.
        wanted: ids of the samples that must be there. None requires only that the sample numbers
            have no gap.

    Returns:
        The missing samples, as ids or numbers. If any is missing, no file is changed. If another
        process is writing rows of the task, no file is changed either: that process merges the
        rows when it finishes.
    """
    with _lock(folder / RECORD):
        rows = sorted(rows_done(folder, task).values(), key=lambda row: row["index"])
        if wanted is None:
            there = {row["index"] for row in rows}
            missing = [str(i) for i in range(max(there, default=0) + 1) if i not in there]
        else:
            there_ids = {row["id"] for row in rows}
            missing = [key for key in wanted if key not in there_ids]
        if not missing:
            with suppress(Timeout), _all_locked(folder, task):
                _put_together(folder, task, rows)
    return missing


def writing(folder: Path, task: str) -> bool:
    """Return whether a process has one of the task's files open for writing."""
    try:
        with _all_locked(folder, task):
            return False
    except Timeout:
        return True


def _all_locked(folder: Path, task: str) -> ExitStack:
    """Lock all files of a task.

    Raises:
        Timeout: another process is writing one of the files.
    """
    with ExitStack() as held:
        for path in parts(folder, task):
            held.enter_context(_lock(path).acquire(timeout=0))
        return held.pop_all()


def _put_together(folder: Path, task: str, rows: Sequence[Mapping[str, Any]]) -> None:
    target = folder / f"{task}.jsonl"
    text = b"".join(map(_line, rows))
    if not target.exists() or target.read_bytes() != text:
        write_atomically(target, text)
    for path in parts(folder, task):
        if path != target:
            path.unlink()


def _json(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()
