"""Time the attention types side by side: ``python benchmark/speed.py --preset cpu``.

In one process, with one model and one text, the types are: the unpatched model (`origin`: sdpa,
DynamicCache), `stream-lm` with as many visible tokens as inf-llm, and `inf-llm`. The last two also
take the name of a kernel, as in `inf-llm:reference`. A preset has random weights; `--config FILE`
times the model of a configuration.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):  # run as a file, from any folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmark.guard import guarded
from benchmark.timing import draw, profiling, report
from benchmark.timing.arguments import (
    check_seed,
    set_threads,
    write_json,
)
from benchmark.timing.presets import PRESETS, Preset, build_model, preset, preset_of
from benchmark.timing.ratios import ratios
from benchmark.timing.subjects import make_subject, settings_of
from benchmark.timing.walk import Plan, walk
from inf_llm.cli.output import require_writable
from inf_llm.config import load_config
from inf_llm.errors import InfLLMError
from inf_llm.processor import machine
from inf_llm.units import parse_lengths


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code: 0, or 2 with one message for bad input."""
    args = _parser().parse_args(arguments)
    return guarded(lambda: _run(args))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="speed.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--preset", metavar="|".join(PRESETS), help="(default: cpu)")
    parser.add_argument("--config", metavar="FILE", help="time the model of a configuration")
    parser.add_argument("--model", metavar="PATH", help="in the place of the configuration's")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="settings of --config")
    parser.add_argument("--lengths", help="where to measure, as 32k,128k or 1M")
    parser.add_argument("--types", help="what to compare, as origin,stream-lm,inf-llm:triton")
    parser.add_argument("--chunk", type=int, help="tokens of the prompt fed at a time")
    parser.add_argument("--steps", type=int, default=48, help="decoded tokens timed (default: 48)")
    parser.add_argument("--repeat", type=int, default=1, help="walks over the text (default: 1)")
    parser.add_argument("--threads", type=int, help="CPU threads (default: torch's own choice)")
    parser.add_argument(
        "--clock",
        choices=("wall", "cpu"),
        default="wall",
        help="cpu counts this process's own seconds, for a machine that is not quiet",
    )
    parser.add_argument("--seed", type=int, default=0, help="of weights and text")
    parser.add_argument("--json", metavar="FILE", help="write all figures")
    parser.add_argument("--plot", metavar="FILE.png", help="draw time against length")
    parser.add_argument(
        "--profile",
        metavar="FILE.json",
        help="write profiler traces behind the first length, instead of measuring",
    )
    return parser


def _run(args: argparse.Namespace) -> None:
    chosen = _chosen(args)
    plan = _plan(args, chosen)
    names = list(chosen.types) if args.types is None else args.types.split(",")
    for name in names:
        settings_of(name, chosen)  # reject an unknown name before the model is built
    for option in ("json", "plot", "profile"):
        require_writable(f"--{option}", getattr(args, option))
    set_threads(args.threads)
    model = build_model(chosen, plan.seed)
    subjects = [make_subject(name, model, chosen) for name in dict.fromkeys(names)]
    if args.profile:
        print(profiling.trace(subjects, plan.lengths[0], plan.chunk, Path(args.profile)))
        return
    measured = walk(subjects, plan, lambda text: print(text, file=sys.stderr))
    rows = report.rows(measured)
    found = ratios(rows, chosen.target)
    print(report.table(rows, machine(chosen.device)))
    print("\n".join(("", *map(str, found))))
    if args.json:
        facts = {
            "preset": None if chosen.source else args.preset or "cpu",
            "config": chosen.source and chosen.source.to_dict(),
            "plan": dataclasses.asdict(plan),
            "settings": {name: repr(settings_of(name, chosen)) for name in names},
            "environment": report.environment(chosen.device),
            "rows": rows,
            "ratios": [{**dataclasses.asdict(r), "met": r.met} for r in found],
        }
        write_json(args.json, facts)
    if args.plot:
        draw.draw(rows, Path(args.plot))


def _chosen(args: argparse.Namespace) -> Preset:
    if args.config is not None:
        if args.preset is not None:
            raise InfLLMError("--config and --preset each name a model: give one of them")
        return preset_of(load_config(args.config, args.overrides, model=args.model))
    if args.model is not None or args.overrides:
        raise InfLLMError("--model and KEY=VALUE belong to a configuration: give --config too")
    return preset(args.preset or "cpu")


def _plan(args: argparse.Namespace, chosen: Preset) -> Plan:
    lengths = chosen.lengths if args.lengths is None else parse_lengths("--lengths", args.lengths)
    chunk = chosen.chunk if args.chunk is None else args.chunk
    counts = {name: getattr(args, name) for name in ("steps", "repeat")}
    check_seed(args.seed)
    for name, value in {"chunk": chunk, **counts}.items():
        if value is not None and value < 1:
            raise InfLLMError(f"--{name} {value} is out of range: it must be at least 1")
    return Plan(lengths, chunk, args.steps, min(8, args.steps), args.repeat, args.seed, args.clock)


if __name__ == "__main__":
    sys.exit(main())
