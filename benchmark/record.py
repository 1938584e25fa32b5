"""A run's folder: which settings made it, which rows are done, and how it survives a kill.

`run.json` holds the configuration, the prompt rules and, per task, the data's digest. A run with
other settings is refused: rows of two settings in one file would be the result of neither.

A row is one line, written at once and synced. A torn last line, which a kill may leave, is cut off
and its sample done again; so nothing is lost and nothing doubled.
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
    """A folder cannot take this run's rows; the message says why and what to do."""


def claim(folder: Path, settings: Mapping[str, Any], tasks: Mapping[str, Any]) -> None:
    """Writes or checks the folder's record.

    Args:
        folder: where the predictions go; made if absent.
        settings: what must be equal for rows to belong together, by section. The machine that
            made the first of them stands beside it.
        tasks: what must be equal per task; tasks may be added later.

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
        held = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise RunFolderError(f"{path} is not JSON ({error}): use another folder") from error
    if not isinstance(held, dict) or not isinstance(held.get("tasks"), dict):
        raise RunFolderError(f"{path} was not written by this harness: use another folder")
    return held


def _refuse_changes(folder: Path, held: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    before = {key: held.get(key) for key in _COMPARED}
    now = {key: wanted.get(key) for key in _COMPARED}
    shared = held["tasks"].keys() & wanted["tasks"].keys()
    before["tasks"] = {task: held["tasks"][task] for task in shared}
    now["tasks"] = {task: wanted["tasks"][task] for task in shared}
    old, new = flatten(before), flatten(now)
    changed = [key for key in sorted(old | new) if old.get(key) != new.get(key)]
    if changed:
        changes = "; ".join(f"{k} was {old.get(k)!r} and is now {new.get(k)!r}" for k in changed)
        raise RunFolderError(
            f"{folder} was made with other settings: {changes}. "
            "Use another --output_dir_path, or the settings it was made with"
        )


def flatten(tree: Mapping[str, Any], lead: str = "") -> dict[str, Any]:
    """Nested settings as dotted names, the section's own name left out."""
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
    """One task's file of rows, opened for one writer.

    Args:
        path: the file; made if absent.

    Raises:
        RunFolderError: another process is writing it.
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
        """Writes one row, and returns when it is on the disk."""
        self._file.write(_line(row))
        self._file.flush()
        os.fsync(self._file.fileno())

    def __enter__(self) -> RowFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._lock.release()


def _lock(path: Path) -> FileLock:
    """What a process holds while it writes a file of a run; it goes with the process."""
    locks = path.parent / ".locks"
    locks.mkdir(exist_ok=True)
    return FileLock(locks / path.name)


def _line(row: Mapping[str, Any]) -> bytes:
    """A row as it is written; halves of characters, which UTF-8 does not have, are escaped."""
    try:
        text = json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        text = json.dumps(row).encode()
    return text + b"\n"


def task_path(folder: Path, task: str, rank: int = 0, world_size: int = 1) -> Path:
    """Where a process writes a task's rows: its own part where there are several."""
    name = f"{task}.jsonl" if world_size == 1 else f"{task}.jsonl.{rank}-of-{world_size}"
    return folder / name


def parts(folder: Path, task: str) -> list[Path]:
    """The task's files: the whole one first, then the parts of ranks."""
    return [p for p in [folder / f"{task}.jsonl"] if p.exists()] + sorted(
        folder.glob(f"{task}.jsonl.*-of-*")
    )


def rows_done(folder: Path, task: str) -> dict[str, dict[str, Any]]:
    """The rows written so far by any process, by sample id.

    Of doubles the one without an error counts, else the last: a failed sample was done again.
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
    """Puts a complete task into one file, in the samples' order.

    Args:
        folder: the run's folder.
        task: the task's name.
        wanted: ids that must be there; None asks for no gap in the samples' numbers.

    Returns:
        What is missing (ids, or numbers of samples); nothing was changed if anything is, nor while
        another process writes rows of the task: it does this itself when it is done.
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
    """Whether a process has one of the task's files open to write rows."""
    try:
        with _all_locked(folder, task):
            return False
    except Timeout:
        return True


def _all_locked(folder: Path, task: str) -> ExitStack:
    """Holds all of the task's files.

    Raises:
        Timeout: another process is writing one.
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
