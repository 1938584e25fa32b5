"""Measure a grid of models, lengths and settings: run ``inf-llm fidelity`` for each line.

    python benchmark/fidelity.py grid.txt --out results/fidelity

A line of the grid is a name and the arguments of the command. Empty lines and comments after # are
ignored:

    smollm2-4k  -c smollm2 --length 4k --read dense --against repr_topk=32
    gemma-8k    -c gemma-3 -m google/gemma-3-270m-it --length 8k

Each line has its own output folder, so an interrupted grid continues where it stopped.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):  # run as a file, from any folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from typer.main import get_command

from benchmark.guard import guarded
from inf_llm.cli import app
from inf_llm.cli.output import prepare_process
from inf_llm.errors import InfLLMError, TextError
from inf_llm.generation import read_text


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code: 0, or 2 if a line could not be measured."""
    args = _parser().parse_args(arguments)
    prepare_process()
    return guarded(lambda: _run(args.grid, args.out))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fidelity.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("grid", type=Path, help="a name and arguments a line")
    parser.add_argument("--out", type=Path, required=True, help="folder of the lines' folders")
    return parser


def read_grid(text: str) -> dict[str, list[str]]:
    """Return the arguments of each line by its name.

    Raises:
        TextError: a line is malformed, or its name is invalid or used twice.
    """
    grid: dict[str, list[str]] = {}
    for number, line in enumerate(text.splitlines(), 1):
        try:
            words = shlex.split(line, comments=True)
        except ValueError as error:
            raise TextError(f"line {number}: {error}: close what is opened") from None
        if not words:
            continue
        name, *rest = words
        if name in grid or "/" in name or name.startswith("-"):
            raise TextError(
                f"line {number}: {name!r} is no name of its own: begin with one that no other "
                "line has, without a slash"
            )
        grid[name] = rest
    return grid


def _run(grid: Path, out: Path) -> None:
    lines = read_grid(read_text(grid))
    command, failed = get_command(app), []
    for name, words in lines.items():
        print(f"== {name}", file=sys.stderr)
        code = command.main(["fidelity", *words, "--out", str(out / name)], standalone_mode=False)
        failed += [name] if code else []
    if failed:
        raise InfLLMError(f"not measured: {', '.join(failed)}; what is wrong is said above")


if __name__ == "__main__":
    sys.exit(main())
