"""A published table again: ``reproduce.py infllm``, its figures beside those measured here.

    python benchmark/reproduce.py infllm --output_dir_path reproduced/infllm
    python benchmark/reproduce.py streaming-llm --base llama-3 --model FOLDER --limit 20 ...

The table is that of the InfLLM paper on InfiniteBench (Xiao et al., 2024, table 1): its own method,
LM-Infinite and StreamingLLM, over two models, with the windows that the table says. Data and
prompts are fetched by ``scripts/download.sh infinitebench``. Without a GPU it is a smoke run
instead: the embedded model with the same attention type, on short texts made here, whose figures
stand beside nothing. A run that was cut off goes on.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
"""Tasks of a smoke run; generated, so nothing is fetched."""


@dataclass(frozen=True)
class Published:
    """A row of the table.

    Attributes:
        config: the configuration file that it is made with.
        settings: what the table has otherwise.
        scores: in the order of `INFLLM_7`, in percent.
    """

    config: str
    settings: tuple[str, ...]
    scores: tuple[float, ...]


_WINDOW_32K = ("model.n_init=128", "model.n_local=32640")
_WINDOW_8K = ("model.n_init=128", "model.n_local=8064")
TABLE = {
    ("infllm", "mistral"): Published(
        "mistral-inf-llm-12k",
        ("model.topk=96",),
        (100.0, 96.1, 96.8, 43.7, 15.7, 25.8, 25.7),
    ),
    ("infllm", "llama-3"): Published(
        "llama-3-inf-llm",
        ("model.topk=32", "model.max_cached_block=64"),
        (100.0, 99.0, 5.0, 43.7, 19.5, 24.3, 23.7),
    ),
    ("lm-infinite", "mistral"): Published(
        "mistral-infinite-lm", _WINDOW_32K, (28.8, 28.8, 0.4, 42.8, 11.4, 22.5, 16.3)
    ),
    ("lm-infinite", "llama-3"): Published(
        "llama-3-infinite-lm", _WINDOW_8K, (6.8, 7.6, 0.2, 41.5, 14.6, 20.8, 20.6)
    ),
    ("streaming-llm", "mistral"): Published(
        "mistral-stream-llm", _WINDOW_32K, (28.8, 28.5, 0.2, 42.4, 11.5, 22.1, 16.9)
    ),
    ("streaming-llm", "llama-3"): Published(
        "llama-3-stream-llm", _WINDOW_8K, (8.5, 8.3, 0.4, 40.6, 14.3, 20.4, 21.4)
    ),
}
"""By method and base."""
_SMOKE_CONFIG = {
    "infllm": "demo-inf-llm",
    "lm-infinite": "demo-infinite-lm",
    "streaming-llm": "demo-stream-llm",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code: 0, or 2 with one message for bad input."""
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
    found = score_folder(folder)
    tasks = SMOKE if smoke else INFLLM_7
    published = {} if smoke else dict(zip(INFLLM_7, row.scores, strict=True))
    print("\n".join(lines(found, tasks, published)))
    if smoke:
        print("\nA smoke run: it shows that everything runs, and says nothing about the paper.")


def _whole(args: argparse.Namespace, folder: Path, row: Published) -> list[str]:
    """Arguments of `pred.py` for a row of the table."""
    own = [] if args.model is None else [f"model.path={args.model}"]
    return [
        *_arguments(CONFIG / f"{row.config}.yaml", folder, INFLLM_7, args),
        "--data_dir",
        args.data_dir,
        *row.settings,
        *own,
    ]


def _smoke(args: argparse.Namespace, folder: Path) -> list[str]:
    """The same for the embedded model and texts made here."""
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


def lines(found: RunScores, tasks: Sequence[str], published: Mapping[str, float]) -> list[str]:
    """A Markdown table: a row per task, and the mean where every task was measured.

    Args:
        found: what was measured.
        tasks: the rows.
        published: the paper's figures by task; none for a smoke run.
    """
    table = ["| task | published | here | SE | n |", "|---|---:|---:|---:|---:|"]
    for task in tasks:
        own = found.tasks.get(task)
        there = f"{published[task]:.1f}" if task in published else "-"
        if own is None:
            table.append(f"| {task} | {there} | not measured | | |")
            continue
        error = "-" if own.se is None else f"{own.se:.1f}"
        table.append(f"| {task} | {there} | {own.score:.1f} | {error} | {own.n} |")
    if all(task in found.tasks for task in tasks):
        mean = sum(found.tasks[task].score for task in tasks) / len(tasks)
        there = f"{sum(published.values()) / len(published):.1f}" if published else "-"
        table.append(f"| **mean** | {there} | {mean:.1f} | | |")
    return table


if __name__ == "__main__":
    sys.exit(main())
