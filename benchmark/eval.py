"""Score predictions: ``python benchmark/eval.py --dir_path D`` or ``--compare D1 D2 ...``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # run as a file, from any folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmark import plot, report
from benchmark.compare import compare
from benchmark.guard import folder_name, guarded
from benchmark.metrics.longbench import SIMILARITIES
from benchmark.scores import RunScores, score_folder
from benchmark.tasks.base import ScoreOptions
from inf_llm.errors import SettingsError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code: 0, or 2 with one message for bad input."""
    args = _parser().parse_args(arguments)
    return guarded(lambda: _run(args))


def _run(args: argparse.Namespace) -> None:
    option = "--compare" if args.compare else "--dir_path"
    folders = [Path(folder_name(f, option)) for f in args.compare or [args.dir_path]]
    if args.output_dir_path is not None:
        folder_name(args.output_dir_path, "--output_dir_path")
    if args.seed < 0:
        raise SettingsError(f"--seed {args.seed} is too small: at least 0 is needed")
    _show([_score(folder, args) for folder in folders], args)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="eval.py", description=__doc__)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--dir_path", metavar="D", help="folder of <task>.jsonl predictions")
    which.add_argument(
        "--compare", nargs="+", metavar="D", help="folders to put side by side, baseline first"
    )
    parser.add_argument(
        "--output_dir_path", metavar="D", help="where result.md and result.json go (default: D)"
    )
    parser.add_argument("--format", choices=("markdown", "json"), default="markdown")
    parser.add_argument("--plot", metavar="FILE.png", help="draw the scores")
    parser.add_argument(
        "--code_similarity",
        choices=SIMILARITIES,
        default="difflib",
        help="how LongBench's code lines are compared; difflib is the official way",
    )
    parser.add_argument(
        "--model_name",
        help="as InfiniteBench's scorer takes it: for gpt4 the first number of a math_calc "
        "answer is dropped (default: the folder's name)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap")
    return parser


def _score(folder: Path, args: argparse.Namespace) -> RunScores:
    return score_folder(folder, _options(folder, args))


def _options(folder: Path, args: argparse.Namespace) -> ScoreOptions:
    model = args.model_name or folder.absolute().name
    skip = model.lower().replace("-", "").startswith("gpt4")
    return ScoreOptions(similarity=args.code_similarity, skip_first_number=skip)


def _show(runs: Sequence[RunScores], args: argparse.Namespace) -> None:
    if args.compare:
        others = report.run_names(runs)[1:]
        rows = {
            name: compare(runs[0], run, args.seed)
            for name, run in zip(others, runs[1:], strict=True)
        }
        text, data = report.compare_markdown(runs, rows), report.compare_json(runs, rows)
        target, stem = args.output_dir_path, "compare"
    else:
        run = runs[0]
        record, notes = _record(run.folder), _notes(run, args)
        text, data = report.markdown(run, record, notes), report.as_json(run, record, notes)
        target, stem = args.output_dir_path or run.folder, "result"
    print(text if args.format == "markdown" else json.dumps(data, indent=2, ensure_ascii=False))
    if target and (refused := report.write(Path(target), stem, text, data)):
        print(f"note: {refused}", file=sys.stderr)
    if args.plot:
        plot.draw(runs, Path(args.plot))


def _record(folder: Path) -> dict[str, Any]:
    """Return the record that `pred.py` wrote into the folder; empty if there is none."""
    try:
        record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}


def _notes(run: RunScores, args: argparse.Namespace) -> list[str]:
    notes = []
    if {"lcc", "repobench-p"} & {task.removesuffix("_e") for task in run.tasks}:
        notes.append(f"Code similarity by {args.code_similarity}.")
    if "math_calc" in run.tasks:
        skips = _options(run.folder, args).skip_first_number
        notes.append(f"math_calc: first number {'dropped, as for gpt4' if skips else 'kept'}.")
    if run.empty:
        notes.append(f"Without any prediction yet, and not scored: {', '.join(run.empty)}.")
    if any(task.failures for task in run.tasks.values()):
        notes.append("Failed samples count 0.")
    return notes


if __name__ == "__main__":
    sys.exit(main())
