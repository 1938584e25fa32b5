"""Servers in one folder: one alone, or several that share it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from inf_llm.errors import SavedMemoryError
from inf_llm.serve import folder_lock
from inf_llm.serve.folder_lock import FolderLock


def come_in(folder: Path, shared: bool) -> FolderLock:
    place = FolderLock(folder, shared)
    place.settle()
    return place


def test_servers_that_share_come_in_one_after_another(tmp_path: Path) -> None:
    first, second = come_in(tmp_path, True), come_in(tmp_path, True)
    assert (first.first, second.first) == (True, False)
    first.release()
    assert not come_in(tmp_path, True).first


@pytest.mark.parametrize(("held", "wanted"), [(False, False), (False, True), (True, False)])
def test_no_server_comes_to_one_that_is_alone(
    tmp_path: Path, held: bool, wanted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_lock, "STARTUP_SECONDS", 0.1)
    place = come_in(tmp_path, held)
    with pytest.raises(SavedMemoryError, match="is used by another server"):
        FolderLock(tmp_path, wanted)
    place.release()
    assert come_in(tmp_path, wanted).first


def test_a_server_that_was_killed_holds_nothing(tmp_path: Path) -> None:
    program = (
        "import os, sys, pathlib; from inf_llm.serve.folder_lock import FolderLock\n"
        "FolderLock(pathlib.Path(sys.argv[1]), True).settle(); os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", program, str(tmp_path)]).returncode == -9
    assert list(tmp_path.glob("server-*.lock"))
    assert come_in(tmp_path, False).first
    assert not list(tmp_path.glob("server-*.lock"))
