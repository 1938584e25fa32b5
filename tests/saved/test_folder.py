"""A folder: one writer, any number of readers, one commit; and disks that fail."""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from inf_llm.errors import SavedMemoryError
from inf_llm.saved import folder as folders
from inf_llm.saved.folder import (
    Writer,
    check_folder,
    checked,
    claimed,
    reading,
    remove,
    sweep,
    verify,
    writing,
)
from inf_llm.saved.manifest import Manifest, read_manifest
from inf_llm.saved.segment import map_segment
from tests.saved.folders import Failing, add, contents, manifest, save


def tell(folder: Path) -> tuple[int, list[int]]:
    """The generation, and who wrote the segments, as a reader sees it."""

    def read(found: Manifest) -> tuple[int, list[int]]:
        with checked(folder, found.segments):
            tensors = [map_segment(folder / each.file, each.bytes) for each in found.segments]
        return found.generation, [int(each["rows"][0, 0]) for each in tensors]

    return reading(folder, read)


def test_each_save_adds_to_the_folder(tmp_path: Path) -> None:
    first = save(tmp_path)
    assert tell(tmp_path) == (1, [1, 1, 1])
    second = save(tmp_path)
    assert tell(tmp_path) == (2, [1, 1, 2, 2, 2])
    assert second.id == first.id
    assert verify(tmp_path) == []
    assert sorted(contents(tmp_path)) == sorted(
        ["lock", "manifest.json", *(each.file for each in second.segments)]
    )


def test_another_memory_takes_the_place_of_what_is_there(tmp_path: Path) -> None:
    first = save(tmp_path)
    with writing(tmp_path) as writer:
        writer.start_anew()
        writer.commit(manifest(writer, [add(writer, "state")]))
    assert read_manifest(tmp_path).id != first.id
    assert tell(tmp_path) == (2, [2])
    assert not (tmp_path / "blocks-000001.safetensors").exists()


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_what_is_not_committed_is_removed(tmp_path: Path, error: type[BaseException]) -> None:
    save(tmp_path)
    before = contents(tmp_path)

    def stops(writer: Writer) -> None:
        add(writer, "blocks")
        raise error

    with pytest.raises(error), writing(tmp_path) as writer:
        stops(writer)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("names", [["file"], ["lock", "file"], ["lock"], ["manifest.json"]])
def test_a_folder_of_other_files_is_left_as_it_is(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        (tmp_path / name).write_text("{}")
    before = contents(tmp_path)
    with pytest.raises(SavedMemoryError, match=r"but other files|is not known"), writing(tmp_path):
        pass
    with pytest.raises(SavedMemoryError, match=r"holds no memory|is not known"):
        remove(tmp_path)
    with pytest.raises(SavedMemoryError, match=r"holds no memory|is not known"):
        tell(tmp_path)
    assert contents(tmp_path) == before


LEFT = ["state-000009.safetensors", "blocks-000002.safetensors.part", ".manifest.json.77"]
OTHERS = ["state-9.safetensors", "model-000001.safetensors", "a.part", ".manifest.json.x", "notes"]


def test_only_what_a_killed_writer_left_is_removed(tmp_path: Path) -> None:
    save(tmp_path)
    before = contents(tmp_path)
    for name in (*LEFT, *OTHERS):
        (tmp_path / name).write_bytes(b"")
    sweep(tmp_path)
    assert contents(tmp_path) == before | dict.fromkeys(OTHERS, b"")


def test_a_first_save_that_was_killed_is_begun_anew(tmp_path: Path) -> None:
    for name in (*LEFT, "lock"):
        (tmp_path / name).touch()
    with pytest.raises(SavedMemoryError, match="holds no memory"):
        tell(tmp_path)
    save(tmp_path)
    assert tell(tmp_path) == (1, [1, 1, 1])
    assert not any((tmp_path / name).exists() for name in LEFT)


def elsewhere(work: Callable[[Path], Any], path: Path) -> Any:
    """What another thread makes of a folder, for which locks are as for another process."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(work, path).result()


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    save(tmp_path)
    with writing(tmp_path) as writer:
        add(writer, "state")
        with pytest.raises(SavedMemoryError, match="is being written by another process"):
            elsewhere(save, tmp_path)
        with pytest.raises(SavedMemoryError, match="is being written by another process"):
            elsewhere(remove, tmp_path)
        assert elsewhere(tell, tmp_path) == (1, [1, 1, 1])
        assert (tmp_path / "state-000002.safetensors").exists()  # no reader swept it


def test_a_reader_does_not_lock_a_folder_with_nothing_to_sweep(tmp_path: Path) -> None:
    save(tmp_path)
    (tmp_path / "lock").unlink()
    tell(tmp_path)
    assert not (tmp_path / "lock").exists()


def test_a_reader_while_a_writer_commits(tmp_path: Path) -> None:
    """Between the manifest and the segments another state takes the place of the first."""
    save(tmp_path)
    seen: list[int] = []

    def read(found: Manifest) -> int:
        seen.append(found.generation)
        if len(seen) < 3:
            save(tmp_path)
        (state,) = found.of_kind("state")
        return int(map_segment(tmp_path / state.file, state.bytes)["rows"][0, 0])

    assert reading(tmp_path, read) == 3
    assert seen == [1, 2, 3]


def test_a_writer_that_never_rests(tmp_path: Path) -> None:
    save(tmp_path)

    def read(found: Manifest) -> None:
        save(tmp_path)
        map_segment(tmp_path / found.of_kind("state")[0].file, 0)

    with pytest.raises(SavedMemoryError, match="is written all the time"):
        reading(tmp_path, read)


def test_readers_beside_a_writer(tmp_path: Path) -> None:
    save(tmp_path)
    failures: list[BaseException] = []
    done = threading.Event()

    def read_on() -> None:
        try:
            while not done.is_set():
                generation, written_by = tell(tmp_path)
                assert written_by[-1] == generation
        except BaseException as error:
            if "is written all the time" not in str(error):
                failures.append(error)

    reader = threading.Thread(target=read_on)
    reader.start()
    for _ in range(20):
        save(tmp_path)
    done.set()
    reader.join()
    assert not failures
    assert tell(tmp_path)[0] == 21


def test_a_missing_segment_is_named(tmp_path: Path) -> None:
    save(tmp_path)
    (tmp_path / "index-000001.safetensors").unlink()
    for look in (tell, verify):
        with pytest.raises(SavedMemoryError, match=r"index-000001.safetensors is missing"):
            look(tmp_path)


def test_a_damaged_segment_is_named(tmp_path: Path) -> None:
    save(tmp_path)
    for name in ("blocks-000001.safetensors", "state-000001.safetensors"):
        (tmp_path / name).write_bytes(b"other")
    damages = verify(tmp_path)
    named = [Path(each.split(" is damaged")[0]).name for each in damages]
    assert named == ["blocks-000001.safetensors", "state-000001.safetensors"]
    with pytest.raises(SavedMemoryError, match=r"blocks-000001.safetensors is damaged"):
        tell(tmp_path)


def test_a_segment_that_cannot_be_read(tmp_path: Path) -> None:
    save(tmp_path)

    def read(_: Manifest) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(SavedMemoryError, match=r"cannot be read .*Input/output error"):
        reading(tmp_path, read)


def test_a_memory_is_removed_with_its_folder(tmp_path: Path) -> None:
    save(tmp_path / "m")
    remove(tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_a_memory_is_removed_from_among_other_files(tmp_path: Path) -> None:
    save(tmp_path)
    (tmp_path / "notes").touch()
    remove(tmp_path)
    assert contents(tmp_path) == {"notes": b""}


def test_a_damaged_memory_can_be_removed(tmp_path: Path) -> None:
    save(tmp_path / "m")
    (tmp_path / "m" / "manifest.json").write_text("{")
    remove(tmp_path / "m")
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize("name", ["no", "file"])
def test_nothing_to_remove(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SavedMemoryError, match="holds no memory"):
        remove(tmp_path / name)


def test_a_folder_that_may_only_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path)
    (tmp_path / LEFT[0]).touch()

    def refused(*_: Any, **__: Any) -> Any:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(folders, "FileLock", refused)
    assert tell(tmp_path) == (1, [1, 1, 1])
    assert verify(tmp_path) == []
    with pytest.raises(OSError, match="Read-only"):
        save(tmp_path)


def failures(folder: Path, error: int, forever: bool) -> Iterator[tuple[int, OSError | None]]:
    """Save again with the first call failing, then with the second, until none fails."""
    for at in range(1, 200):
        with pytest.MonkeyPatch.context() as patch:
            disk = Failing(patch, at, error, forever)
            try:
                save(folder)
                failed = None
            except OSError as caught:
                failed = caught
        yield at, failed
        if disk.calls < at:
            return
    raise AssertionError("a save makes fewer calls")


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
def test_a_call_that_fails_leaves_the_last_commit(tmp_path: Path, error: int) -> None:
    save(tmp_path)
    failed = 0
    held, before = read_manifest(tmp_path), contents(tmp_path)
    for at, raised in failures(tmp_path, error, forever=False):
        if raised is None:  # it was one of removing what is old, or none at all
            assert read_manifest(tmp_path).generation == held.generation + 1, at
        else:
            failed += 1
            assert read_manifest(tmp_path) == held, at
            sweep(tmp_path)
            assert contents(tmp_path) == before, at
        sweep(tmp_path)
        assert verify(tmp_path) == []
        save(tmp_path)
        held, before = read_manifest(tmp_path), contents(tmp_path)
    assert failed >= 12  # three segments of three calls, two syncs of the folder, the manifest


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
def test_a_disk_that_fails_from_then_on(tmp_path: Path, error: int) -> None:
    """What was taken back cannot always be written, but what is there is whole."""
    save(tmp_path)
    for at, _ in failures(tmp_path, error, forever=True):
        before = read_manifest(tmp_path)
        assert verify(tmp_path) == [], at
        named = {"lock", "manifest.json", *(each.file for each in before.segments)}
        assert set(contents(tmp_path)) == named
        save(tmp_path)
        assert read_manifest(tmp_path).generation == before.generation + 1


def test_a_first_save_that_fails(tmp_path: Path) -> None:
    for at in range(1, 30):
        folder = tmp_path / str(at)
        with pytest.MonkeyPatch.context() as patch:
            disk = Failing(patch, at, errno.EIO, forever=False)
            try:
                save(folder)
            except OSError:
                assert set(contents(folder)) <= {"lock"}
        save(folder)
        assert verify(folder) == []
        if disk.calls < at:
            return
    raise AssertionError("a save makes fewer calls")


def test_a_folder_that_has_nothing_to_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some file systems refuse to sync a folder; theirs is the order in which names appear."""
    real = os.fsync

    def fsync(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    save(tmp_path)
    assert tell(tmp_path) == (1, [1, 1, 1])


def test_names_of_new_folders_are_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(folders, "sync_folder", synced.append)
    save(tmp_path / "a" / "m")
    assert synced == [tmp_path, tmp_path / "a", tmp_path / "a" / "m"]
    save(tmp_path / "a" / "m")
    assert synced[3:] == [tmp_path / "a" / "m"]


def test_a_manifest_with_another_seal_is_no_clean_folder(tmp_path: Path) -> None:
    save(tmp_path)
    replace(read_manifest(tmp_path), tokens=4).write(tmp_path)  # its checksum is right
    (damage,) = verify(tmp_path)
    assert "manifest.json was changed after it was written" in damage


def test_a_place_that_cannot_be_written_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    file, link = tmp_path / "file", tmp_path / "link"
    file.write_text("")
    link.symlink_to(tmp_path / "gone" / "folder")
    for path, message in ((file, "is a file"), (file / "sub", "file is a file"), (link, "gone")):
        with pytest.raises(SavedMemoryError, match=message):
            check_folder(path)
    assert check_folder(tmp_path / "new" / "folder") is None


def test_a_folder_without_permission_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(SavedMemoryError, match="may not be written"):
        check_folder(tmp_path / "new")


def test_a_folder_that_is_claimed_is_for_one_thread_or_process(tmp_path: Path) -> None:
    """Which may write to it meanwhile."""
    with claimed(tmp_path / "m") as held:
        assert held is None
        save(tmp_path / "m")
        with pytest.raises(SavedMemoryError, match="is being written by another process"):
            elsewhere(save, tmp_path / "m")
    with claimed(tmp_path / "m") as held:
        assert held == read_manifest(tmp_path / "m")
    save(tmp_path / "m")
