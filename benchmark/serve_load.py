"""Load test of a server: several kinds of clients at once, and their waiting times.

    python benchmark/serve_load.py --config demo --scenario book

`book`: short questions every second while a text is read. `readers`: many texts at once.
`decoders`: many answers at once, compared with one at a time. `mixed`: books, chats and short
questions at random times. With --one-at-a-time the server runs one request at a time.
Overrides of the configuration come last: `model.dtype=float32`.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):  # run as a file, from any folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    from inf_llm.cli.output import set_waiting

    set_waiting()

from benchmark.guard import guarded
from benchmark.load.scenarios import SCENARIOS, Load
from benchmark.load.server import serving
from benchmark.load.texts import Texts
from benchmark.timing.arguments import write_json
from inf_llm.cli.output import require_writable
from inf_llm.config import load_config
from inf_llm.hf.load import load_tokenizer
from inf_llm.processor import machine
from inf_llm.units import parse_length

TOKENS = {"book": "100k", "readers": "40k", "decoders": "8200", "mixed": "20k"}
ANSWERS = {"book": 4, "readers": 4, "decoders": 64, "mixed": 16}
CLIENTS = {"readers": 16, "decoders": 8}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code: 0, or 2 with one message for bad input."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", default="demo")
    parser.add_argument("--model", help="a model in place of the configuration's own")
    parser.add_argument("--scenario", choices=SCENARIOS, default="mixed")
    parser.add_argument("--clients", type=int, help="how many, where a scenario has a number")
    parser.add_argument("--tokens", help="length of a long text: 100k")
    parser.add_argument("--answer", type=int, help="tokens of an answer")
    parser.add_argument("--seconds", type=float, default=60.0, help="of the mixed load")
    parser.add_argument("--rate", type=float, default=1.0, help="short questions per second")
    parser.add_argument(
        "--pairs", type=int, default=1, help="texts of `book`, alone and with others"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2, help="of the server")
    parser.add_argument("--one-at-a-time", action="store_true")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("overrides", nargs="*")
    args = parser.parse_args(arguments)
    return guarded(lambda: _run(args))


def _run(args: argparse.Namespace) -> None:
    scenario = args.scenario
    tokens = parse_length("--tokens", args.tokens or TOKENS[scenario])
    require_writable("--json", args.json)
    model = [] if args.model is None else [f"model.path={args.model}"]
    texts = Texts(load_tokenizer(load_config(args.config, [*args.overrides, *model])), args.seed)
    options = ["--config", args.config, *(["--model", args.model] if args.model else [])]
    options += ["--max-active", "1"] if args.one_at_a_time else []
    with serving([*options, *args.overrides], args.threads) as server:
        clients, answer = args.clients or CLIENTS.get(scenario, 1), args.answer or ANSWERS[scenario]
        load = Load(server, texts, clients, tokens, answer, args.seconds, args.rate, args.pairs)
        figures = asyncio.run(SCENARIOS[scenario](load))
        figures |= {"peak memory": server.memory("VmHWM"), "machine": machine("cpu")}
    write_json(args.json, figures)
    for name, value in figures.items():
        print(f"{name:<34} {value}")


if __name__ == "__main__":
    sys.exit(main())
