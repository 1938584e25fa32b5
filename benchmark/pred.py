"""Make predictions: ``pred.py --config_path F --output_dir_path D --datasets a,b,c``.

Each answered sample is written at once as a row of ``D/<task>.jsonl``. A run that was killed
continues from its last row when it is started again with the same arguments. Arguments of the form
key=value override the configuration, e.g. ``model.topk=32``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):  # run as a file, from any folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmark.engine import CORE, make_engine
from benchmark.guard import folder_name, guarded
from benchmark.progress import Progress
from benchmark.prompts import CHAT_RULES, TRUNCATION_RULES
from benchmark.runner import gpu_count, run, run_on_gpus
from benchmark.settings import DEFAULT_DATA, RunOptions
from inf_llm.config import load_config
from inf_llm.errors import SettingsError


def main(arguments: Sequence[str] | None = None, engine: str = CORE) -> int:
    """The command line; returns the exit code: 0, or 2 with one message for bad input.

    `engine` is the address of the function that makes the engine. Tests pass an engine without a
    model.
    """
    args = _parser().parse_intermixed_args(arguments)

    def work() -> None:
        options = _options(args, engine)
        with Progress(verbose=options.verbose) as progress:
            _start(options, args, progress)

    return guarded(work, "stopped; start again with the same arguments to go on")


def _start(options: RunOptions, args: argparse.Namespace, progress: Progress) -> None:
    if args.engine == "ray":
        if args.rank is not None or args.world_size is not None:
            raise SettingsError("ray deals the samples out itself: start it without --rank")
        from benchmark.ray_engine import run_on_ray

        tokenizer = None
        if options.engine != CORE:
            tokenizer = make_engine(options.engine, options.config).tokenizer
        run_on_ray(options, progress, tokenizer)
        return
    alone = args.rank is not None or args.world_size is not None or options.engine != CORE
    placed = options.config.model.device_map is not None
    gpus = 0 if alone or placed else gpu_count()
    if gpus > 1:
        run_on_gpus(options, gpus, progress)
    else:
        run(options, progress)


def _options(args: argparse.Namespace, engine: str) -> RunOptions:
    return RunOptions(
        config=load_config(args.config_path, args.overrides),
        output=Path(folder_name(args.output_dir_path, "--output_dir_path")),
        tasks=tuple(name.strip() for name in args.datasets.split(",") if name.strip()),
        data=Path(args.data_dir),
        prompts=args.prompts,
        chat_template=args.chat_template,
        truncation=args.truncation,
        limit=args.limit,
        samples=args.samples,
        seed=args.seed,
        haystack=None if args.haystack is None else Path(args.haystack),
        rank=args.rank or 0,
        world_size=1 if args.world_size is None else args.world_size,
        retry_failed=args.retry_failed,
        verbose=args.verbose,
        engine=engine,
    )


def _parser() -> argparse.ArgumentParser:
    lines = __doc__.split("\n\n")
    parser = argparse.ArgumentParser(prog="pred.py", description=" ".join(lines[1].split()))
    add = parser.add_argument
    add("--config_path", required=True, metavar="F", help="YAML configuration")
    add("--output_dir_path", required=True, metavar="D", help="folder of the predictions")
    add("--datasets", required=True, metavar="a,b,c", help="tasks, such as passkey,qasper,kv@8k")
    add("overrides", nargs="*", metavar="key=value", help="overrule the configuration")
    add("--data_dir", default=str(DEFAULT_DATA), metavar="D", help="the benchmarks' files")
    add("--limit", type=int, metavar="N", help="only the first N samples of a task")
    add("--rank", type=int, metavar="R", help="number of this process, from 0")
    add("--world_size", type=int, metavar="W", help="processes that share the samples")
    add("--engine", choices=("local", "ray"), default="local", help="where samples are spread")
    add("--verbose", action="store_true", help="show every prediction beside its answer")
    add("--retry_failed", action="store_true", help="do failed samples again")
    rules = parser.add_argument_group("prompt rules, kept in run.json")
    add = rules.add_argument
    add("--prompts", metavar="SET", help="prompt set: infllm, gpt4, plain, ruler, ...")
    add("--chat_template", choices=CHAT_RULES, default="auto", help="auto is per task")
    add("--truncation", choices=TRUNCATION_RULES, help="default: the configuration's")
    made = parser.add_argument_group("generated tasks (name@length)")
    add = made.add_argument
    add("--samples", type=int, default=50, metavar="N", help="samples of a task")
    add("--seed", type=int, default=0)
    add("--haystack", metavar="FILE", help="text to hide needles in (default: noise sentences)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
