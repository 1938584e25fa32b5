"""What a save asks of the disk, recorded, and the folders that a crash in the middle can leave.

A file's content is on the disk when the file was synced, and a change of names when the folder was.
Until then a crash may lose any of it: of unsynced content a part or all, of changes of names any
one, or all behind a point.
"""

from __future__ import annotations

import builtins
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from inf_llm import atomic
from inf_llm.saved import segment

Call = tuple[str, ...]
"""("create", name), ("write", name), ("sync", name), ("rename", from, to), ("remove", name) or
("sync folder",)."""
Files = dict[str, bytes]


class Recorder:
    """Calls in the order in which they were made; the content of `write` is in `written`."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.written: list[bytes] = []
        self._names: dict[int, str] = {}

    @contextmanager
    def __call__(self, patch: pytest.MonkeyPatch) -> Iterator[Recorder]:
        """Record what the writers of segments and manifests do."""
        fsync_, replace_, unlink_ = os.fsync, Path.replace, Path.unlink

        def opened(path: Any, mode: str = "r", *args: Any, **options: Any) -> Any:
            file = builtins.open(path, mode, *args, **options)  # noqa: PTH123, SIM115
            self._note("create", Path(path).name)
            self._names[file.fileno()] = Path(path).name
            return _Written(file, self, Path(path).name)

        def fsync(handle: int) -> None:
            fsync_(handle)
            name = self._names.pop(handle, None)
            self._note(*(("sync folder",) if name is None else ("sync", name)))

        def replace(one: Path, other: Path) -> None:
            replace_(one, other)
            self._note("rename", one.name, other.name)

        def unlink(path: Path, missing_ok: bool = False) -> None:
            unlink_(path, missing_ok)
            self._note("remove", path.name)

        for module in (segment, atomic):
            patch.setattr(module, "open", opened, raising=False)
        patch.setattr(os, "fsync", fsync)
        patch.setattr(Path, "replace", replace)
        patch.setattr(Path, "unlink", unlink)
        yield self

    def _note(self, *call: str, content: bytes = b"") -> None:
        self.calls.append(call)
        self.written.append(content)


class _Written:
    """A file whose writes are recorded."""

    def __init__(self, file: Any, recorder: Recorder, name: str) -> None:
        self._file, self._recorder, self._name = file, recorder, name

    def write(self, content: Any) -> int:
        self._recorder._note("write", self._name, content=bytes(content))
        return int(self._file.write(content))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> _Written:
        return self

    def __exit__(self, *error: Any) -> None:
        self._file.close()


class _File:
    """The content of a file, and how much of it is on the disk."""

    def __init__(self, content: bytes = b"") -> None:
        self.content = content
        self.synced = len(content)


def record(save: Callable[[], object]) -> list[tuple[Call, bytes]]:
    """The calls of a save, each with what it wrote."""
    recorder = Recorder()
    with pytest.MonkeyPatch.context() as patch, recorder(patch):
        save()
    return list(zip(recorder.calls, recorder.written, strict=True))


def crashes(before: Files, calls: Sequence[tuple[Call, bytes]]) -> list[Files]:
    """Every folder, once, that a crash before any of the calls, or after the last, can leave."""
    found: dict[tuple[tuple[str, bytes], ...], Files] = {}
    for end in range(len(calls) + 1):
        for files in _left(before, calls[:end]):
            found[tuple(sorted(files.items()))] = files
    return list(found.values())


def _left(before: Files, calls: Sequence[tuple[Call, bytes]]) -> Iterator[Files]:
    durable = {name: _File(content) for name, content in before.items()}
    names, pending = dict(durable), []
    for (kind, *args), content in calls:
        if kind == "write":
            names[args[0]].content += content
        elif kind == "sync":
            names[args[0]].synced = len(names[args[0]].content)
        elif kind == "sync folder":
            durable, pending = dict(names), []
        else:
            change = kind, args, _File() if kind == "create" else names[args[0]]
            pending.append(change)
            _change(names, *change)
    for some in _subsets(pending):
        folder = dict(durable)
        for change in some:
            _change(folder, *change)
        for keep in (lambda file: 0, lambda file: (len(file.content) - file.synced) // 2, None):
            yield {
                name: file.content if keep is None else file.content[: file.synced + keep(file)]
                for name, file in folder.items()
            }


def _change(names: dict[str, _File], kind: str, args: list[str], file: _File) -> None:
    """Names after a change, of which an earlier one may be lost."""
    names.pop(args[0], None)
    if kind != "remove":
        names[args[-1]] = file


def _subsets(pending: Sequence[Any]) -> Iterator[list[Any]]:
    """The first few changes, all but one, and one alone."""
    yield []
    for at, change in enumerate(pending):
        yield list(pending[: at + 1])
        yield [*pending[:at], *pending[at + 1 :]]
        yield [change]
