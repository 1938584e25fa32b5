"""Read millions of tokens on a CPU, and compare the host memory with the predicted amount.

    python benchmark/scale.py --tokens 10m

The random model of speed.py's preset `tiny` (2 layers, hidden size 64) reads random tokens with
InfLLM. The measured memory is the increase of the process's resident memory since before the first
token. The prediction is that of `inf-llm plan` for blocks, summary vectors and address tables.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # run as a file, from any folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    from inf_llm.cli.output import set_waiting

    set_waiting()

import torch

from benchmark import process_memory
from benchmark.guard import guarded
from benchmark.timing.arguments import (
    check_seed,
    set_threads,
    write_json,
)
from benchmark.timing.presets import build_model, preset
from inf_llm.cli.output import require_writable
from inf_llm.hf.decoder import with_cache
from inf_llm.hf.outline import layer_shapes
from inf_llm.hf.patch import new_cache, patch
from inf_llm.plan.held import Feed, held_by_layers
from inf_llm.processor import machine
from inf_llm.settings import InfLLMSettings
from inf_llm.units import parse_length

PARTS = 20
MEMORY = InfLLMSettings(n_init=64, n_local=512, block_size=64, topk=8, exc_block_size=512)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code: 0, or 2 with one message for bad input."""
    args = _parser().parse_args(arguments)
    return guarded(lambda: _run(args))


def _run(args: argparse.Namespace) -> None:
    tokens = parse_length("--tokens", args.tokens)
    require_writable("--json", args.json)
    check_seed(args.seed)
    set_threads(args.threads)
    facts = measure(tokens, args.seed)
    write_json(args.json, facts)
    held, predicted = facts["host_bytes"] / 1e6, facts["predicted_host_bytes"] / 1e6
    print(
        f"{tokens:,} tokens in {facts['seconds']:.0f} s; host memory {held:,.0f} MB, predicted "
        f"{predicted:,.0f} MB, ratio {facts['ratio']:.3f}; time of the last part over the second: "
        f"{facts['last_over_second']:.2f}; {facts['hardware']}"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scale.py", description=__doc__.split("\n\n")[0])
    parser.add_argument("--tokens", default="10m", help="how many are read (default: 10m)")
    parser.add_argument("--seed", type=int, default=0, help="of weights and tokens")
    parser.add_argument("--threads", type=int, help="CPU threads (default: torch's own choice)")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    return parser


@torch.no_grad()
def measure(tokens: int, seed: int = 0, chunk: int = 4096) -> dict[str, Any]:
    """Read `tokens` tokens, print a progress line after each twentieth, and return the figures."""
    model = build_model(preset("tiny"), seed)
    shapes = layer_shapes(model)
    patch(model, MEMORY)
    cache = new_cache(model)
    generator = torch.Generator().manual_seed(seed)
    before, started = process_memory.resident(), time.perf_counter()
    parts: list[dict[str, float]] = []
    done, mark, edge = 0, started, 1
    while done < tokens:
        size = min(chunk, tokens - done)
        ids = torch.randint(256, (1, size), generator=generator)
        model(input_ids=ids, logits_to_keep=1, **with_cache(model, cache))
        done += size
        if done * PARTS >= edge * tokens:
            now, total = time.perf_counter(), cache.stats().total
            parts.append(
                {
                    "tokens": done,
                    "seconds": now - mark,
                    "host_bytes": process_memory.resident() - before,
                    "device_kv_bytes": total.device_bytes,
                }
            )
            mark, edge = now, edge + 1
            print(
                f"{done:11,} tokens  {now - started:6.0f} s  host "
                f"{parts[-1]['host_bytes'] / 1e6:8,.0f} MB  device {total.device_bytes:,} bytes",
                file=sys.stderr,
                flush=True,
            )
    planned = held_by_layers(shapes, MEMORY, Feed(tokens, torch.float32, slots=False))
    predicted = planned.blocks + planned.index + planned.tables
    return {
        "hardware": machine("cpu"),
        "tokens": tokens,
        "seconds": time.perf_counter() - started,
        "host_bytes": parts[-1]["host_bytes"],
        "counted_host_bytes": total.host_bytes + total.index_bytes,
        "predicted_host_bytes": predicted,
        "ratio": parts[-1]["host_bytes"] / max(1, predicted),
        "last_over_second": parts[-1]["seconds"] / parts[min(1, len(parts) - 1)]["seconds"],
        "parts": parts,
    }


if __name__ == "__main__":
    sys.exit(main())
