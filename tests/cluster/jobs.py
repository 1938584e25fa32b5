"""What actors of tests work with: small, and able to die."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

from inf_llm.cluster.tasks import Work
from inf_llm.errors import TextError


def make_counting(folder: Path) -> Work[str]:
    """Of a job "NAME COUNT" the items 0 to COUNT - 1, each with the process that made it.

    Every item that is begun is noted in a file of the job's name. A job called "refused" ends with
    an error; "fatal-N" ends its process before its third item, the first N times, as soon as the
    items before it have been noted with `note_given`.
    """

    def work(job: str, given: int) -> Iterator[tuple[int, int]]:
        name, count = job.split()
        for item in range(given, int(count)):
            _note(folder / name, item)
            if name == "refused" and item == 1:
                raise TextError("this is refused")
            if name.startswith("fatal") and item == 2 and _deaths(folder / name) < int(name[6:]):
                _note(folder / f"{name}.deaths", item)
                _await_lines(folder / f"{name}.given", item)
                os._exit(1)
            yield item, os.getpid()

    return work


def make_nothing(folder: Path) -> Work[str]:
    """The model cannot be loaded."""
    raise TextError(f"{folder} has no model")


def note_given(folder: Path, job: str, item: int) -> None:
    """The driver has this item: what dies later does not take it along."""
    _note(folder / f"{job.split()[0]}.given", item)


def _await_lines(file: Path, lines: int) -> None:
    deadline = time.monotonic() + 60
    while not file.exists() or len(file.read_text().split()) < lines:
        assert time.monotonic() < deadline, f"{file} has no {lines} lines"
        time.sleep(0.05)


def _note(file: Path, item: int) -> None:
    with file.open("a") as opened:
        opened.write(f"{item}\n")


def _deaths(file: Path) -> int:
    deaths = file.with_name(f"{file.name}.deaths")
    return len(deaths.read_text().split()) if deaths.exists() else 0
