"""Puts the parts that ranks wrote into one file a task; ranks that finish do so by themselves."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):  # run as a file, from any folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmark.record import RunFolderError, finish, parts
from inf_llm.errors import InfLLMError


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; exit code 2 where a part or a sample is missing."""
    parser = argparse.ArgumentParser(prog="merge.py", description=__doc__)
    parser.add_argument("--output_dir_path", required=True, metavar="D")
    parser.add_argument("--datasets", required=True, metavar="a,b,c")
    parser.add_argument("--world_size", type=int, metavar="W", help="not needed; parts are found")
    args = parser.parse_args(arguments)
    try:
        for task in filter(None, map(str.strip, args.datasets.split(","))):
            _merge(Path(args.output_dir_path), task)
    except InfLLMError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _merge(folder: Path, task: str) -> None:
    if not folder.is_dir() or not parts(folder, task):
        raise RunFolderError(f"{folder} holds no rows of {task}")
    if missing := finish(folder, task):
        shown = ", ".join(missing[:10]) + (", ..." if len(missing) > 10 else "")
        raise RunFolderError(
            f"{task} in {folder} lacks {len(missing)} samples ({shown}): start the ranks again"
        )


if __name__ == "__main__":
    sys.exit(main())
