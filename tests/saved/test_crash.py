"""A crash at every call of a save: the folder holds the last commit or the one before."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from inf_llm.errors import SavedMemoryError
from inf_llm.saved.folder import verify
from inf_llm.saved.manifest import NAME, read_manifest
from tests.saved.folders import contents, save
from tests.saved.replay import Call, Files, crashes, record

Calls = list[tuple[Call, bytes]]


def faults(folder: Path, before: Files, calls: Calls, allowed: set[Any]) -> list[str]:
    """What is wrong with the folders that a crash can leave."""
    found = []
    for number, files in enumerate(crashes(before, calls)):
        at = folder / str(number)
        at.mkdir()
        for name, content in files.items():
            (at / name).write_bytes(content)
        found += _faults(at, allowed)
    return found


def _faults(folder: Path, allowed: set[Any]) -> list[str]:
    if not (folder / NAME).exists():
        return [] if None in allowed else [f"{folder} holds nothing"]
    try:
        damages = verify(folder)
        manifest = read_manifest(folder)
    except SavedMemoryError as error:
        return [str(error)]
    named = {NAME, "lock", *(each.file for each in manifest.segments)}
    left = [f"{name} is left over" for name in contents(folder) if name not in named]
    other = [] if manifest.generation in allowed else [f"generation {manifest.generation}"]
    return damages + left + other


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Files, Calls]:
    """A folder that was saved to twice, and the calls of the third save."""
    for _ in range(2):
        save(tmp_path / "m")
    before = contents(tmp_path / "m")
    return before, record(lambda: save(tmp_path / "m"))


def test_a_crash_at_any_call(saved: tuple[Files, Calls], tmp_path: Path) -> None:
    before, calls = saved
    kinds = [call[0] for call, _ in calls]
    assert kinds.count("sync") == 4  # three segments and the manifest
    assert kinds.count("sync folder") == 2
    assert len(crashes(before, calls)) > 50
    assert faults(tmp_path, before, calls, {2, 3}) == []


def test_a_crash_of_the_first_save(tmp_path: Path) -> None:
    calls = record(lambda: save(tmp_path / "m"))
    assert faults(tmp_path, {}, calls, {None, 1}) == []


def _without(*names: str) -> Callable[[Calls], Calls]:
    """Forget to sync files whose names begin so."""
    return lambda calls: [
        each for each in calls if each[0][0] != "sync" or not each[0][1].startswith(names)
    ]


def _without_folders(calls: Calls) -> Calls:
    return [each for each in calls if each[0] != ("sync folder",)]


def _manifest_first(calls: Calls) -> Calls:
    """Commit before the segments are written."""
    mine = [each for each in calls if any(NAME in part for part in each[0][1:])]
    return mine + [each for each in calls if each not in mine]


def _removed_first(calls: Calls) -> Calls:
    """Remove the old state before the commit."""
    (old,) = [each for each in calls if each[0][0] == "remove"]
    return [old] + [each for each in calls if each is not old]


@pytest.mark.parametrize(
    "broken",
    [
        _without("blocks"),
        _without("state"),
        _without(f".{NAME}"),
        _without_folders,
        _manifest_first,
        _removed_first,
    ],
)
def test_control_a_careless_save_is_caught(
    saved: tuple[Files, Calls], tmp_path: Path, broken: Callable[[Calls], Calls]
) -> None:
    before, calls = saved
    assert faults(tmp_path, before, broken(calls), {2, 3})
