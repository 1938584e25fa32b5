"""Writers of saved memories that are killed, and saves that are cut: a commit is all or none."""

from __future__ import annotations

import copy
import errno
import itertools
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

import inf_llm
from inf_llm.errors import SavedMemoryError
from inf_llm.hf.saving import load_memory, save_memory
from inf_llm.saved.folder import verify
from inf_llm.saved.manifest import NAME, Manifest, read_manifest
from tests.hf.test_saving import goes_on
from tests.hf.tiny import LONG, feed, tiny_patched, tokens
from tests.saved.folders import Failing, contents
from tests.saved.replay import crashes, record

STEP = LONG["exc_block_size"]
FORKS = pytest.mark.skipif(sys.platform != "linux", reason="torch survives a fork on Linux only")


def read_on(model: Any, cache: Any, generation: int) -> None:
    """Feed what is saved as a generation."""
    feed(model, tokens(STEP, seed=generation), cache)


def started(model: Any, folder: Path) -> Any:
    """A cache with a few blocks, saved as the first generation."""
    cache = inf_llm.new_cache(model)
    feed(model, tokens(96), cache)
    save_memory(cache, model, folder)
    return cache


def left_over(folder: Path) -> set[str]:
    """Files that the manifest does not name."""
    named = {"lock", NAME, *(each.file for each in read_manifest(folder).segments)}
    return set(contents(folder)) - named


class Killed:
    """Children that read on and save until they are killed."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.model = tiny_patched()
        self.cache = started(self.model, folder)  # kept in step with the folder, and never saved
        self.generation = 1
        self.in_the_middle = 0
        self._chance = random.Random(seed)

    def once(self, least: float = 0, most: float = 0.3) -> None:
        """Let one work for so many seconds, kill it, and look at what it left."""
        told, tell = os.pipe()
        child = os.fork()
        if child == 0:
            self._work(tell)
        os.close(tell)
        with os.fdopen(told, "rb", buffering=0) as pipe:
            pipe.read(1)  # it has opened the folder
            time.sleep(self._chance.uniform(least, most))
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            committed = self.generation + len(pipe.read())
        self._check(committed)

    def _work(self, tell: int) -> None:
        try:
            cache: Any = load_memory(self.folder, self.model)
            os.write(tell, b".")
            while True:
                read_on(self.model, cache, cache.saved_as[1] + 1)
                save_memory(cache, self.model, self.folder)
                os.write(tell, b".")
        finally:
            os._exit(1)

    def _check(self, committed: int) -> None:
        self.in_the_middle += bool(left_over(self.folder))
        loaded: Any = load_memory(self.folder, self.model)
        assert loaded.saved_as[1] in (committed, committed + 1)
        assert not left_over(self.folder)
        assert verify(self.folder) == []
        while self.generation < loaded.saved_as[1]:
            self.generation += 1
            read_on(self.model, self.cache, self.generation)
        ids = tokens(3, seed=999)
        both = [feed(self.model, ids, each) for each in (copy.deepcopy(self.cache), loaded)]
        assert torch.equal(*both)


@FORKS
@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 10))]
)
def test_twenty_writers_are_killed(tmp_path: Path, seed: int) -> None:
    killed = Killed(tmp_path, seed)
    for _ in range(20):
        killed.once()
    assert killed.generation > 1
    assert killed.in_the_middle > 0


@FORKS
def test_control_a_manifest_that_is_written_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = Killed(tmp_path, 0)

    def careless(manifest: Manifest, folder: Path) -> None:
        content = (folder / NAME).read_bytes()
        (folder / NAME).write_bytes(content[: len(content) // 2])
        time.sleep(60)

    monkeypatch.setattr(Manifest, "write", careless)
    with pytest.raises(SavedMemoryError, match="is not JSON"):
        _until_it_is_caught(killed)


def _until_it_is_caught(killed: Killed) -> None:
    for _ in range(5):  # on a busy machine it does not come so far at once
        killed.once(1, 2)


def test_a_save_that_failed_is_made_again(tmp_path: Path) -> None:
    """With the first call to the disk failing, then with the second, until none fails."""
    model = tiny_patched()
    cache = started(model, tmp_path)
    failed = 0
    for at in itertools.count(1):
        read_on(model, cache, at)
        held = read_manifest(tmp_path)
        with pytest.MonkeyPatch.context() as patch:
            disk = Failing(patch, at, errno.ENOSPC, forever=False)
            try:
                save_memory(cache, model, tmp_path)
            except SavedMemoryError as error:
                failed += "No space left" in str(error)
        if disk.calls < at:
            break
        same = read_manifest(tmp_path) == held
        assert save_memory(cache, model, tmp_path).generation == held.generation + (
            1 if same else 2
        )
    assert failed >= 12
    assert goes_on(model, cache, load_memory(tmp_path, model))


def test_a_save_that_is_cut_at_any_call(tmp_path: Path) -> None:
    """What was not synced is lost; each folder that can be left is opened."""
    model = tiny_patched()
    cache = started(model, tmp_path / "m")
    before = contents(tmp_path / "m")
    twins = {1: copy.deepcopy(cache)}
    read_on(model, cache, 2)
    twins[2] = copy.deepcopy(cache)
    calls = record(lambda: save_memory(cache, model, tmp_path / "m"))
    ids, seen = tokens(3), set()
    expected = {generation: feed(model, ids, twin) for generation, twin in twins.items()}
    for number, files in enumerate(crashes(before, calls)):
        folder = tmp_path / str(number)
        folder.mkdir()
        for name, content in files.items():
            (folder / name).write_bytes(content)
        loaded: Any = load_memory(folder, model)
        generation = loaded.saved_as[1]
        assert verify(folder) == []
        assert not left_over(folder)
        if generation not in seen:  # the same files: verified
            assert torch.equal(feed(model, ids, loaded), expected[generation])
        seen.add(generation)
    assert seen == {1, 2}
