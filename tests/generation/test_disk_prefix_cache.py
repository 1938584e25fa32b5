"""Sessions on a disk: found again by another process, within a quota, whole or not at all."""

from __future__ import annotations

import os
import threading
from array import array
from pathlib import Path
from typing import Any

import pytest
import torch

import inf_llm
from inf_llm.errors import SavedMemoryError
from inf_llm.generation import Session
from inf_llm.generation.disk_prefix_cache import DiskEntry, DiskPrefixCache
from tests.tiny import SETTINGS, tiny_model, tiny_tokenizer

GRAIN = SETTINGS["exc_block_size"]


def _ids(seed: int, length: int) -> list[int]:
    return torch.randint(2, 200, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


@pytest.fixture(scope="module")
def model() -> Any:
    return inf_llm.patch(tiny_model(), type="inf-llm", **SETTINGS)


def _session(model: Any, seed: int, grains: int = 6) -> Session:
    """One that has read whole execution blocks, and waits for nothing."""
    session = Session(model, tiny_tokenizer(), 128)
    session.read(_ids(seed, grains * GRAIN + 1))
    del session.ids[session.fed :]
    return session


def _disk_cache(folder: Path, model: Any, quota: int | None = None) -> DiskPrefixCache:
    return DiskPrefixCache(folder, model, tiny_tokenizer(), quota)


def _best(disk_cache: DiskPrefixCache, session: Session, more: int = 5) -> DiskEntry | None:
    return disk_cache.best(array("q", [*session.ids, *_ids(99, more)]))


def _answer(session: Session) -> tuple[int, ...]:
    return session.fork().ask(_ids(7, 9), max_new_tokens=6, min_new_tokens=6).token_ids


def test_another_process_finds_the_longest_beginning(model: Any, tmp_path: Path) -> None:
    short, long, other = _session(model, 1, 4), _session(model, 1, 7), _session(model, 2)
    for each in (short, long, other):
        assert _disk_cache(tmp_path, model).put(each)
    disk_cache = _disk_cache(tmp_path, model)
    assert len(disk_cache) == 3
    found = _best(disk_cache, long)
    assert found is not None
    assert found.key.tolist() == long.ids
    assert _answer(disk_cache.load(found)) == _answer(long)
    assert _best(disk_cache, short).key.tolist() == short.ids
    assert disk_cache.best(array("q", _ids(3, 400))) is None
    assert _best(disk_cache, long, more=0).key.tolist() == short.ids, (
        "an answer needs a token to feed"
    )


def test_what_is_kept_is_not_written_again(model: Any, tmp_path: Path) -> None:
    disk_cache = _disk_cache(tmp_path, model)
    assert disk_cache.put(_session(model, 1))
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")}
    assert disk_cache.put(_session(model, 1))
    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")} == before


def test_the_quota_takes_those_used_least_recently(model: Any, tmp_path: Path) -> None:
    sessions = [_session(model, seed) for seed in range(4)]
    _disk_cache(tmp_path, model).put(sessions[0])
    quota = int(3.5 * _disk_cache(tmp_path, model).bytes)
    for each in sessions[1:3]:
        assert _disk_cache(tmp_path, model, quota).put(each)
    for at, folder in enumerate(sorted(tmp_path.iterdir(), key=lambda each: each.stat().st_mtime)):
        os.utime(folder, (at, at))
    disk_cache = _disk_cache(tmp_path, model, quota)
    disk_cache.load(_best(disk_cache, sessions[0]))  # by an earlier process, and by this one
    assert _disk_cache(tmp_path, model, quota).put(sessions[3])
    left = _disk_cache(tmp_path, model, quota)
    assert [bool(_best(left, each)) for each in sessions] == [True, False, True, True]
    assert left.bytes <= quota


def test_a_session_larger_than_the_quota_throws_nothing_out(model: Any, tmp_path: Path) -> None:
    small, large = _session(model, 1, 3), _session(model, 2, 30)
    disk_cache = _disk_cache(tmp_path, model)
    disk_cache.put(small)
    disk_cache = _disk_cache(tmp_path, model, disk_cache.bytes + 1000)
    assert not disk_cache.put(large)
    assert _best(disk_cache, small)
    assert len(list(tmp_path.iterdir())) == 1


def test_what_belongs_to_others_is_left_alone(model: Any, tmp_path: Path) -> None:
    other = tiny_model()
    with torch.no_grad():
        other.lm_head.weight += 1
    other = inf_llm.patch(other, type="inf-llm", **SETTINGS)
    session = _session(other, 1)
    _disk_cache(tmp_path, other).put(session)
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "folder").mkdir()
    disk_cache = _disk_cache(tmp_path, model, quota=1000)
    assert (len(disk_cache), disk_cache.bytes) == (0, 0)
    assert not disk_cache.put(_session(model, 2))
    assert _best(_disk_cache(tmp_path, other), session)
    assert {"notes.txt", "folder"} < {each.name for each in tmp_path.iterdir()}


def test_what_was_not_committed_goes(model: Any, tmp_path: Path) -> None:
    _disk_cache(tmp_path, model).put(_session(model, 1))
    (folder,) = tmp_path.iterdir()
    (folder / "manifest.json").unlink()
    disk_cache = _disk_cache(tmp_path, model)
    assert len(disk_cache) == 0
    disk_cache.sweep()
    assert not list(tmp_path.iterdir())


def test_a_damaged_session_is_read_again(model: Any, tmp_path: Path) -> None:
    disk_cache, session = _disk_cache(tmp_path, model), _session(model, 1)
    disk_cache.put(session)
    found = _best(disk_cache, session)
    index = next(found.folder.glob("index*"))
    index.write_bytes(index.read_bytes()[:-1] + b"?")
    assert disk_cache.load(found) is None
    assert _best(disk_cache, session) is None
    assert disk_cache.put(session)
    assert _answer(disk_cache.load(_best(disk_cache, session))) == _answer(session)


def test_a_folder_that_cannot_be_made_is_refused(model: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SavedMemoryError, match="cannot hold memories"):
        _disk_cache(tmp_path / "file" / "folder", model)


def test_others_go_on_while_a_session_is_written(model: Any, tmp_path: Path) -> None:
    """What a fork reads meanwhile, in the same store, is none of what is saved, and undisturbed."""
    disk_cache, session = _disk_cache(tmp_path, model), _session(model, 1, 20)
    alone, expected = session.fork(), _answer(session)
    alone.read(_ids(5, 900))
    failures: list[BaseException] = []

    def save() -> None:
        try:
            for at in range(12):
                disk_cache.put(session)
                if at < 11:
                    disk_cache.drop(_best(disk_cache, session))
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=save)
    fork = session.fork()
    thread.start()
    for part in range(0, 900, 50):
        fork.read(_ids(5, 900)[part : part + 50])
    thread.join()
    assert not failures
    assert _answer(fork) == _answer(alone)
    assert _answer(disk_cache.load(_best(disk_cache, session))) == expected
