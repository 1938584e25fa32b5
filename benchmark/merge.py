"""Merge the parts that ranks wrote into one file per task. The last rank to finish does so too."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):  # run as a file, from any folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmark.guard import folder_name, guarded
from benchmark.record import RunFolderError, finish, parts, writing


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code: 0, or 2 if a part or a sample is missing."""
    parser = argparse.ArgumentParser(prog="merge.py", description=__doc__)
    parser.add_argument("--output_dir_path", required=True, metavar="D")
    parser.add_argument("--datasets", required=True, metavar="a,b,c")
    parser.add_argument("--world_size", type=int, metavar="W", help="not needed; parts are found")
    args = parser.parse_args(arguments)

    def work() -> None:
        tasks = [name.strip() for name in args.datasets.split(",") if name.strip()]
        if not tasks:
            raise RunFolderError("no datasets: give --datasets with names, separated by commas")
        for task in tasks:
            _merge(Path(folder_name(args.output_dir_path, "--output_dir_path")), task)

    return guarded(work)


def _merge(folder: Path, task: str) -> None:
    if not folder.is_dir() or not parts(folder, task):
        raise RunFolderError(f"{folder} holds no rows of {task}")
    if writing(folder, task):
        raise RunFolderError(f"{task} in {folder} is being written by a run: wait for it")
    if missing := finish(folder, task):
        shown = ", ".join(missing[:10]) + (", ..." if len(missing) > 10 else "")
        raise RunFolderError(
            f"{task} in {folder} lacks {len(missing)} samples ({shown}): start the ranks again"
        )


if __name__ == "__main__":
    sys.exit(main())
