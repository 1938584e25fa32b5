"""Run benchmark/speed.py of two checkouts alternately, print the ratios; see compare_speed.sh."""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

Figures = dict[str, float]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--work", type=Path, required=True, help="folder for figures of pairs")
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--lengths", default="8k,32k,128k")
    parser.add_argument("--preset", default="cpu")
    parser.add_argument("--steps", type=int, default=32, help="tokens decoded at each length")
    parser.add_argument("--limit", type=float, default=1.05, help="largest ratio that passes")
    args = parser.parse_args(arguments)
    pairs = [_pair(args, number) for number in range(args.pairs)]
    worst = 0.0
    for name in pairs[0][0]:
        ratios = sorted(new[name] / old[name] for old, new in pairs)
        middle = statistics.median(ratios)
        worst = max(worst, middle)
        print(f"{name:24s} new / old {middle:.3f}  ({ratios[0]:.3f} - {ratios[-1]:.3f})")
    print(f"{len(pairs)} pairs, limit {args.limit}: {'met' if worst <= args.limit else 'missed'}")
    return 0 if worst <= args.limit else 1


def _pair(args: argparse.Namespace, number: int) -> tuple[Figures, Figures]:
    """Measure both versions once; every second pair begins with `args.new`."""
    versions = [args.old, args.new]
    order = versions if number % 2 == 0 else versions[::-1]
    figures = {version: _measured(args, version, number) for version in order}
    return figures[args.old], figures[args.new]


def _measured(args: argparse.Namespace, version: Path, number: int) -> Figures:
    """Return the figures of one run, from its file if an earlier call has made the file."""
    command = ["benchmark/speed.py", "--preset", args.preset, "--types", "inf-llm"]
    command += ["--lengths", args.lengths, "--steps", str(args.steps)]
    key = hashlib.sha256(
        " ".join([str(version), _revision(version), *command]).encode()
    ).hexdigest()[:12]
    file = args.work / f"{key}-{number}.json"
    if not file.exists():
        print(f"pair {number + 1}: {version}", file=sys.stderr, flush=True)
        partial = file.with_suffix(".part")
        run = [version / ".venv/bin/python", *command, "--json", partial]
        subprocess.run(run, cwd=version, check=True, stdout=subprocess.DEVNULL)
        partial.replace(file)
    return dict(_figures(json.loads(file.read_text())))


def _figures(facts: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """Yield times and bytes; for all of them, smaller is better."""
    for row in facts["rows"]:
        yield f"read {row['length']}", 1 / row["prefill_tok_s"]
        yield f"decode at {row['length']}", row["decode_ms"]
    yield "most memory", facts["environment"]["peak_rss_bytes"]


def _revision(version: Path) -> str:
    """Return a text that identifies the state of a checkout: its commit and its changes."""
    git = ["git", "-C", str(version)]
    commands = (["rev-parse", "HEAD"], ["diff", "HEAD"])
    return "".join(
        subprocess.run(git + command, capture_output=True, text=True).stdout for command in commands
    )


if __name__ == "__main__":
    sys.exit(main())
