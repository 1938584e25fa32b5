"""Several texts in one command: their files, the paths of their results, and their jobs."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional, Protocol, TypeVar

import typer

from inf_llm.cli.failures import say
from inf_llm.cli.options import path_option
from inf_llm.cli.progress import TokenProgress
from inf_llm.errors import InfLLMError, TextError
from inf_llm.optional import need

if TYPE_CHECKING:
    from inf_llm.cluster.tasks import Work

Words = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Argument(
        metavar="FILE|KEY=VALUE",
        help="Texts, with --out, and settings that replace those of the configuration: "
        "model.topk=32 max_len=100000. A file with '=' in its name is written ./NAME.",
        show_default=False,
    ),
]
out_option = partial(path_option, "--out", "-o")
_SETTING = re.compile(r"[A-Za-z_][\w.]*=")


class Job(Protocol):
    """The work on one text."""

    @property
    def name(self) -> str:
        """Name of the text."""


J = TypeVar("J", bound=Job)


def split_words(words: Sequence[str] | None, out: Path | None) -> tuple[list[Path], list[str]]:
    """Split the arguments of a command into files and settings.

    Raises:
        TextError: there are files without --out, or no files with it, or a file is "-".
    """
    files = [Path(word) for word in words or () if not _SETTING.match(word)]
    if files and out is None:
        raise TextError(
            f"{str(files[0])!r} is no setting (KEY=VALUE): give --out FOLDER for several texts, or "
            "--file for one"
        )
    if out is not None and not files:
        raise TextError(f"--out {out} is for several texts: name them, as in books/*.txt")
    if Path("-") in files:
        raise TextError("'-' is standard input, which has no name for --out: name files")
    return files, [word for word in words or () if _SETTING.match(word)]


def places(files: Sequence[Path], out: Path, suffix: str = "") -> list[tuple[Path, Path]]:
    """Return each file with the path of its result, which is named after the file.

    Raises:
        TextError: two files have the same name there, or the folder cannot be made.
    """
    by_place: dict[Path, Path] = {}
    for file in files:
        place = out / f"{name_of(file)}{suffix}"
        by_place.setdefault(place, file)
        if by_place[place] != file:
            raise TextError(
                f"{by_place[place]} and {file} would both go to {place}: give them names of their "
                "own, or another --out"
            )
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TextError(f"--out {out}: cannot be made ({error.strerror})") from None
    return [(file, place) for place, file in by_place.items()]


def name_of(file: Path) -> str:
    """Return the name for a file's result: the file's without suffix, or a folder's as it is."""
    return file.resolve().name if file.is_dir() else file.stem


def check_engine(engine: str, address: str | None) -> None:
    """Check that an address is given only for Ray, and that Ray is installed if it is used.

    Raises:
        ConfigError: an address is given, and the engine is not Ray.
        MissingExtraError: ray is not installed.
    """
    from inf_llm.cluster.options import refuse_without_ray

    refuse_without_ray(engine, address=address)
    if engine == "ray":
        need("ray", "--engine ray", extra="ray")


def require_seen(result: Path, shown: Path) -> None:
    """Check that this machine has a result, which another machine may have written.

    Args:
        result: file that must exist.
        shown: the file, or its folder, as the user gave it.

    Raises:
        TextError: the file does not exist here.
    """
    if not result.exists():
        raise TextError(
            f"{shown} was written on another machine and is not seen here: give a folder on a "
            "disk that all machines of the cluster have"
        )


def work_off(
    jobs: Sequence[J],
    make: Callable[[J], Work[J]],
    engine: str,
    address: str | None,
    on_item: Callable[[J, Any], None],
) -> None:
    """Do jobs, and call `on_item` with every item of every job.

    Args:
        jobs: the jobs; if there are none, nothing is started.
        make: called with the first job; returns the function that does all jobs. It is passed on to
            `here` or `on_ray`.
        engine, address: engine that runs the jobs, and address of its cluster.
        on_item: called with a job and one of its items.

    Raises:
        InfLLMError: no job could be started, or some jobs failed; the others are done.
    """
    from inf_llm.cluster.tasks import Failure, here, on_ray

    if not jobs:
        return
    making, failed = partial(make, jobs[0]), []
    on_it = here(jobs, making) if engine == "local" else on_ray(jobs, making, address or "local")
    for job, item in on_it:
        if isinstance(item, Failure):
            failed.append(f"{job.name}: {item.reason}")
            if len(jobs) > 1:
                say(failed[-1])
        else:
            on_item(job, item)
    if failed:
        of = f"{len(failed)} of {len(jobs)} texts failed, the last " if len(jobs) > 1 else ""
        raise InfLLMError(f"{of}{failed[-1]}")


class Bars(ExitStack):
    """A progress bar for one unit at a time; another unit starts another bar.

    Args:
        doing: for each unit, the activity as a present and a past participle.
    """

    def __init__(self, doing: dict[str, tuple[str, str]]) -> None:
        super().__init__()
        self._doing = doing
        self._unit, self._text = "", ""
        self._bar: TokenProgress | None = None

    def show(self, unit: str, done: int, total: int, text: str) -> None:
        """Show that `done` of `total` units are done, with `text` beside the bar."""
        self._text = text
        if self._bar is None or unit != self._unit:
            self.close()
            made = TokenProgress(lambda: self._text, unit, self._doing[unit])
            self._unit, self._bar = unit, self.enter_context(made)
        self._bar(done, total)

    @property
    def seconds(self) -> float:
        """Seconds since the start of the bar; 0 without a bar."""
        return self._bar.seconds if self._bar else 0.0
