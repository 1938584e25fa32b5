"""Soak test of a server: clients of all kinds for a long time, with checks of memory and answers.

    python benchmark/serve_soak.py --minutes 60

The server is a separate process with a small memory budget and a folder on the disk. Its memory,
open files and threads are sampled after a warm-up of one minute, or of a quarter of the time if
that is less. Exit code 1: memory grew by more than --growth from the first to the last quarter of
the samples, or an answer was wrong, or a connection broke. Overrides of the configuration come
last.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # run as a file, from any folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    from inf_llm.cli.output import set_waiting

    set_waiting()

from benchmark.guard import guarded
from benchmark.load.scenarios import connections
from benchmark.load.server import Server, serving
from benchmark.load.soak import Soak
from benchmark.load.texts import Texts
from benchmark.load.watch import Sample, figures, growth, watched
from benchmark.timing.arguments import write_json
from inf_llm.cli.output import require_writable
from inf_llm.config import load_config
from inf_llm.hf.load import load_tokenizer
from inf_llm.units import parse_bytes, parse_length, size

FOUND = 1
"""Exit code if a check failed."""
WARM_SECONDS = 60.0
"""Longest warm-up: memory grows while the first texts are read, so it is not sampled yet."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code: 0, 1 (see the module), or 2 for bad input."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", default="demo")
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--clients", type=int, default=6, help="at once")
    parser.add_argument("--tokens", default="4k", help="length of the longest texts")
    parser.add_argument("--memory-budget", default="100MB", help="of the server")
    parser.add_argument("--disk-quota", default="100MB", help="of the server")
    parser.add_argument("--growth", default="40MB", help="most that memory may grow")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="of the server")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("overrides", nargs="*")
    args = parser.parse_args(arguments)
    found: list[str] = []
    return guarded(lambda: found.extend(_run(args))) or (FOUND if found else 0)


def _run(args: argparse.Namespace) -> list[str]:
    """Run the test, and return descriptions of the failed checks."""
    require_writable("--json", args.json)
    most = parse_bytes("--growth", args.growth)
    overrides = [*args.overrides, "model.dtype=float32"]
    texts = Texts(load_tokenizer(load_config(args.config, overrides)), args.seed)
    tokens = parse_length("--tokens", args.tokens)
    options = ["--config", args.config, "--memory-budget", args.memory_budget]
    with tempfile.TemporaryDirectory() as folder:
        options += ["--memory-dir", folder, "--disk-quota", args.disk_quota, *overrides]
        with serving(options, args.threads) as server:
            soak, samples = asyncio.run(
                _soaked(server, texts, tokens, 60 * args.minutes, args.clients)
            )
    result = _figures(soak, samples)
    write_json(args.json, result)
    for name, value in result.items():
        print(f"{name:<24} {value}")
    wrong = [*soak.tally.wrong, *soak.tally.failures]
    if growth(samples) > most:
        wrong.append(f"memory grew by {growth(samples):,} bytes, more than {most:,}")
    for line in wrong:
        print(line, file=sys.stderr)
    return wrong


async def _soaked(
    server: Server, texts: Texts, tokens: int, seconds: float, clients: int
) -> tuple[Soak, list[Sample]]:
    samples: list[Sample] = []
    async with connections() as http:
        soak = Soak(server, http, texts, tokens)
        await soak.begin()
        warm = min(WARM_SECONDS, seconds / 4)
        await soak.run(warm, clients)
        watches = [
            asyncio.create_task(watched(server, min(5.0, seconds / 100), samples)),
            asyncio.create_task(_reported(soak, samples)),
        ]
        await soak.run(seconds - warm, clients)
        for watch in watches:
            watch.cancel()
            with suppress(asyncio.CancelledError):
                await watch
    return soak, samples


async def _reported(soak: Soak, samples: Sequence[Sample]) -> None:
    """Print the progress every minute until the task is cancelled."""
    while True:
        await asyncio.sleep(60)
        now, tally = samples[-1], soak.tally
        print(
            f"{now.seconds / 60:.0f} min: {tally.requests.total()} requests, "
            f"{len(tally.wrong)} wrong, {size(now.memory)}, {now.files} files, "
            f"{now.threads} threads",
            file=sys.stderr,
            flush=True,
        )


def _figures(soak: Soak, samples: Sequence[Sample]) -> dict[str, Any]:
    tally = soak.tally
    return {
        "requests": dict(sorted(tally.requests.items())),
        "refused as busy": dict(tally.busy),
        "connections that broke": dict(tally.failures),
        "wrong": tally.wrong,
        **figures(samples),
        "growth": growth(samples),
    }


if __name__ == "__main__":
    sys.exit(main())
