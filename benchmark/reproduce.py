"""Reproduce a published table: ``reproduce.py infllm`` shows published and measured figures.

    python benchmark/reproduce.py infllm --output_dir_path reproduced/infllm
    python benchmark/reproduce.py streaming-llm --base llama-3 --model FOLDER --limit 20 ...

The table is table 1 of the InfLLM paper (Xiao et al., 2024), on InfiniteBench, for one of two
models. The paper also has figures of LM-Infinite and StreamingLLM. Only published cells that could
be checked against a record of the paper are printed; the others are shown as "-". Data and prompts
are fetched by ``scripts/download.sh infinitebench``. Without a GPU, the program does a smoke run
instead: the embedded model with the same attention type on short generated texts, without
published figures to compare with. An interrupted run continues.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

if __package__ in (None, ""):  # run as a file, from any folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import torch

from benchmark import pred
from benchmark.guard import folder_name, guarded
from benchmark.scores import RunScores, score_folder
from benchmark.settings import DEFAULT_DATA
from benchmark.tasks.infinitebench import INFLLM_7
from inf_llm.errors import InfLLMError, SettingsError

CONFIG = Path(__file__).resolve().parent.parent / "config"
SMOKE = "passkey@4k", "number@4k", "kv@4k"
"""Tasks of a smoke run. They are generated, so no data is needed."""


@dataclass(frozen=True)
class Published:
    """The published figures of one method and one model.

    Attributes:
        config: name of the configuration file to reproduce them with.
        settings: overrides of the configuration.
        scores: the known figures of the paper, in percent, by task.
        mean: the paper's mean over `INFLLM_7`; None if it is not known.
    """

    config: str
    settings: tuple[str, ...] = ()
    scores: Mapping[str, float] = field(default_factory=dict)
    mean: float | None = None


TABLE = {
    ("infllm", "mistral"): Published(
        "mistral-inf-llm-12k",
        ("model.topk=96",),
        {
            "passkey": 100.0,
            "number_string": 96.1,
            "kv_retrieval": 96.8,
            "longbook_choice_eng": 43.7,
            "math_find": 25.7,
        },
        57.7,
    ),
    ("infllm", "llama-3"): Published(
        "llama-3-inf-llm",
        ("model.topk=32", "model.max_cached_block=64"),
        {"kv_retrieval": 5.0, "longbook_choice_eng": 43.7},
        45.0,
    ),
    ("lm-infinite", "mistral"): Published("mistral-infinite-lm"),
    ("lm-infinite", "llama-3"): Published("llama-3-infinite-lm"),
    ("streaming-llm", "mistral"): Published("mistral-stream-llm"),
    ("streaming-llm", "llama-3"): Published("llama-3-stream-llm"),
}
"""Published figures by method and base model."""
_SMOKE_CONFIG = {
    "infllm": "demo-inf-llm",
    "lm-infinite": "demo-infinite-lm",
    "streaming-llm": "demo-stream-llm",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code: 0, or 2 with one message for bad input."""
    args = _parser().parse_args(arguments)
    return guarded(lambda: _run(args), "stopped; the same command goes on from here")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("method", choices=tuple(_SMOKE_CONFIG))
    add("--base", choices=("mistral", "llama-3"), default="mistral", help="model of the table")
    add("--model", metavar="FOLDER", help="its weights (default: the hub's)")
    add("--output_dir_path", required=True, metavar="D", help="folder of the predictions")
    add("--data_dir", default=str(DEFAULT_DATA), metavar="D", help="the benchmark's files")
    add("--limit", type=int, metavar="N", help="only the first N samples of a task")
    add("--smoke", action="store_true", help="a smoke run, though there is a GPU")
    add("--full", action="store_true", help="the whole table, though there is no GPU: weeks")
    return parser


def _run(args: argparse.Namespace) -> None:
    if args.smoke and args.full:
        raise SettingsError("--smoke and --full exclude each other: give one of them")
    folder = Path(folder_name(args.output_dir_path, "--output_dir_path"))
    smoke = args.smoke or not (args.full or torch.accelerator.is_available())
    row = TABLE[args.method, args.base]
    code = pred.main(_smoke(args, folder) if smoke else _whole(args, folder, row))
    if code:
        raise InfLLMError("no table: what is wrong is said above")
    scores = score_folder(folder)
    tasks, beside = (SMOKE, Published("")) if smoke else (INFLLM_7, row)
    print("\n".join(lines(scores, tasks, beside)))
    if smoke:
        print("\nA smoke run: it shows that everything runs, and says nothing about the paper.")


def _whole(args: argparse.Namespace, folder: Path, row: Published) -> list[str]:
    """Return the arguments of `pred.py` for a row of the table."""
    model_override = [] if args.model is None else [f"model.path={args.model}"]
    return [
        *_arguments(CONFIG / f"{row.config}.yaml", folder, INFLLM_7, args),
        "--data_dir",
        args.data_dir,
        *row.settings,
        *model_override,
    ]


def _smoke(args: argparse.Namespace, folder: Path) -> list[str]:
    """Return the arguments of `pred.py` for a smoke run: the embedded model, generated texts."""
    if args.model is not None:
        raise SettingsError("--model is of the whole table: give --full too, or leave it out")
    config = CONFIG / f"{_SMOKE_CONFIG[args.method]}.yaml"
    return [*_arguments(config, folder, SMOKE, args), "--samples", "5"]


def _arguments(
    config: Path, folder: Path, tasks: Sequence[str], args: argparse.Namespace
) -> list[str]:
    limit = [] if args.limit is None else ["--limit", str(args.limit)]
    named = {"config_path": config, "output_dir_path": folder, "datasets": ",".join(tasks)}
    return [*(part for key, value in named.items() for part in (f"--{key}", str(value))), *limit]


def lines(scores: RunScores, tasks: Sequence[str], row: Published) -> list[str]:
    """Return the lines of a Markdown table: one per task, and the mean if all were measured.

    Args:
        scores: the measured scores.
        tasks: the tasks of the table.
        row: the published figures; empty for a smoke run.
    """
    table = ["| task | published | here | SE | n |", "|---|---:|---:|---:|---:|"]
    for task in tasks:
        result, there = scores.tasks.get(task), _figure(row.scores.get(task))
        if result is None:
            table.append(f"| {task} | {there} | not measured | | |")
        else:
            table.append(
                f"| {task} | {there} | {result.score:.1f} | {_figure(result.se)} | {result.n} |"
            )
    if all(task in scores.tasks for task in tasks):
        mean = sum(scores.tasks[task].score for task in tasks) / len(tasks)
        table.append(f"| **mean** | {_figure(row.mean)} | {mean:.1f} | | |")
    return table


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


if __name__ == "__main__":
    sys.exit(main())
