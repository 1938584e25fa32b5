"""Simulate many servers that share one disk: how many are needed, with which routing policy.

    python benchmark/serve_sim.py --measure smollm2 --costs smollm2.json model.path=FOLDER
    python benchmark/serve_sim.py --costs smollm2.json --think 300 --draw replicas.svg

Users ask questions about documents, some documents more often than others. A replica has some
documents in memory, opens others from the disk, and reads a document that no replica has read.
Policies choose the replica of a question: `random` takes any one; `affinity` the owner of the
document. While the owner has many requests, `spill` takes the replica with the fewest requests,
`spill-saved` does so only if the document is on the disk, and `next-saved` then takes the next
replica in the document's own order. The costs of a replica are measured: --measure loads a model
and writes its costs on this machine to a file. Overrides of its configuration come last.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # run as a file, from any folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    from inf_llm.cli.output import set_waiting

    set_waiting()

from benchmark.guard import guarded
from benchmark.simulation.costs import Costs, read_costs, write_costs
from benchmark.simulation.figures import Row, figures, table
from benchmark.simulation.routing import POLICIES
from benchmark.simulation.run import simulate
from benchmark.simulation.scenario import Scenario
from benchmark.timing.arguments import set_threads, write_json
from inf_llm.cli.output import require_writable
from inf_llm.config import load_config
from inf_llm.errors import InfLLMError, SettingsError
from inf_llm.units import parse_bytes, parse_length, short, size

DEFAULT = Scenario()
MAX_REPLICAS = 4096


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code: 0, or 2 with one message for bad input."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--costs", required=True, type=Path, help="JSON of what was measured, read or written")
    add("--measure", metavar="CONFIG", help="measure first: a YAML file, or a name of `configs`")
    add("--tokens", help="length of a document, with --measure: 100k")
    add("--threads", type=int, default=1, help="with --measure")
    add("--clock", choices=("wall", "cpu"), default="wall", help="with --measure; see speed.py")
    add("overrides", nargs="*", help="of the configuration: model.path=FOLDER")
    add("--replicas", default="1,2,4,8,16,32,64", help="numbers of servers")
    add("--policies", default=",".join(POLICIES), help="how a server is chosen")
    _scenario_options(parser)
    add("--json", type=Path, help="write the figures here too")
    add("--draw", type=Path, help="draw them: .svg or .png")
    return guarded(lambda: _run(parser.parse_intermixed_args(arguments)))


def _scenario_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("load")

    def add(name: str, about: str) -> None:
        value = getattr(DEFAULT, name)
        option = f"--{name.replace('_', '-')}"
        group.add_argument(option, type=type(value), default=value, help=f"{about} ({value})")

    add("users", "who ask")
    add("think", "seconds between two questions of a user, on average")
    add("documents", "that they ask about")
    add("zipf", "how much more often the first is asked about than the last: an exponent")
    add("question", "tokens of a question")
    add("answer", "tokens of an answer")
    add("requests", "questions in all")
    add("warm_up", "share of them, the first, that is not counted")
    group.add_argument("--budget", default="64GiB", help="of a replica, for documents (64GiB)")
    add("spill", "requests at the owner above which `spill` takes another replica")
    add("active", "requests that a replica works on at once")
    add("reading_share", "of a replica's time for reading while it answers too")
    group.add_argument("--cold", action="store_true", help="nothing was read before")
    add("seed", "of all that is drawn")


def _run(args: argparse.Namespace) -> None:
    for option in ("json", "draw"):
        require_writable(f"--{option}", getattr(args, option))
    scenario, counts, policies = _scenario(args), _counts(args.replicas), _policies(args.policies)
    costs = _measured(args) if args.measure else _kept(args)
    places = scenario.budget // costs.bytes
    if not places:
        raise SettingsError(
            f"--budget {args.budget} has no room for a document: one takes {size(costs.bytes)}"
        )
    rows: list[Row] = []
    for replicas in counts:
        for policy in policies:
            rows.append(figures(replicas, policy, simulate(costs, scenario, replicas, policy)))
    facts = {"costs": vars(costs), "scenario": vars(scenario), "places": places, "rows": rows}
    write_json(args.json, facts)
    print(f"{costs.model}, {costs.dtype}, {costs.machine}; {costs.how}")
    print(_costs_line(costs))
    print(f"{scenario.rate:.3g} questions a second; {places} documents in a replica's memory\n")
    print(table(rows))
    if args.draw is not None:
        from benchmark.simulation.draw import draw

        draw(rows, args.draw)


def _costs_line(costs: Costs) -> str:
    return (
        f"a document of {short(costs.tokens)} tokens: {size(costs.bytes)}, "
        f"{costs.tokens * costs.reading:.1f} s to read, {costs.opening:.2f} s to open; "
        f"{costs.asking:.2f} s a question and {1e3 * costs.question:.1f} ms a token of it; "
        f"{1e3 * costs.answering:.0f} ms a token of an answer, "
        f"{1e3 * costs.together:.0f} ms of {costs.rows} at once"
    )


def _scenario(args: argparse.Namespace) -> Scenario:
    values: dict[str, Any] = {name: getattr(args, name) for name in vars(DEFAULT)}
    return Scenario(**{**values, "budget": parse_bytes("--budget", args.budget)})


def _counts(text: str) -> list[int]:
    try:
        counts = sorted({int(part) for part in text.split(",")})
    except ValueError:
        counts = []
    if not counts or not 1 <= counts[0] <= counts[-1] <= MAX_REPLICAS:
        raise SettingsError(
            f"--replicas {text!r} is no list of numbers from 1 to {MAX_REPLICAS}: write 1,2,4"
        )
    return counts


def _policies(text: str) -> list[str]:
    names = [part.strip() for part in text.split(",")]
    for name in names:
        if name not in POLICIES:
            raise SettingsError(f"--policies {name!r} is none; accepted: {', '.join(POLICIES)}")
    return names


def _measured(args: argparse.Namespace) -> Costs:
    tokens = parse_length("--tokens", args.tokens or "100k")
    require_writable("--costs", args.costs)
    set_threads(args.threads)
    config = load_config(args.measure, args.overrides)
    from benchmark.simulation.measure import measure

    costs = measure(config, tokens, args.costs.resolve().parent, args.clock)
    write_costs(args.costs, costs)
    return costs


def _kept(args: argparse.Namespace) -> Costs:
    if args.overrides:
        raise InfLLMError(f"{args.overrides[0]!r} goes with --measure: costs are measured already")
    costs = read_costs(args.costs)
    if args.tokens and parse_length("--tokens", args.tokens) != costs.tokens:
        raise InfLLMError(
            f"--tokens {args.tokens}: {args.costs} was measured for {short(costs.tokens)}: give "
            "--measure too, or leave --tokens out"
        )
    return costs


if __name__ == "__main__":
    sys.exit(main())
