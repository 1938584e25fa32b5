"""Time the retrieval indexes on a real model's keys, and measure the recall of inexact search.

    python benchmark/index.py --tokens 400k

The embedded model reads the embedded prose. Each index in turn searches the block representatives
of the model with its queries. `recall` is the share of the exact top-k blocks that an index finds.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # run as a file, from any folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import torch
from torch import Tensor

from benchmark.guard import guarded
from benchmark.timing.arguments import write_json
from inf_llm.cli.output import require_writable
from inf_llm.config import SHIPPED_CONFIGS, load_config
from inf_llm.demo.trial import haystack_text
from inf_llm.errors import InfLLMError
from inf_llm.generation.prefill import empty_cache, prefill
from inf_llm.hf.load import load
from inf_llm.memory.faiss_index import FaissIndex, InvertedIndex
from inf_llm.memory.index import Index, TorchIndex
from inf_llm.processor import machine
from inf_llm.units import parse_length

QUERIES = 64
MAX_TOPK = 512
"""Largest top-k; the smallest comparison has more blocks than this."""
MIN_TOKENS = 8192
"""Least tokens to read, so that the smallest comparison has enough blocks to choose from."""


@dataclass(frozen=True)
class Row:
    """The result of one index.

    Attributes:
        index: name of the index.
        blocks: number of blocks in the index.
        milliseconds: median time of a search with one query for each query head of a layer.
        recall: share of the exact top-k blocks that the index found.
        mebibytes: size of the vectors and the other data of the index.
    """

    index: str
    blocks: int
    milliseconds: float
    recall: float
    mebibytes: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code: 0, or 2 with one message for bad input."""
    args = _parser().parse_args(arguments)

    def work() -> None:
        require_writable("--json", args.json)
        tokens = _tokens(args.tokens)
        if not 1 <= args.topk <= MAX_TOPK:
            raise InfLLMError(f"--topk {args.topk} is out of range: 1 to {MAX_TOPK} are compared")
        rows = measure(tokens, args.layer, args.topk)
        print(machine("cpu"))
        write_json(args.json, [{**asdict(row), "hardware": machine("cpu")} for row in rows])

    return guarded(work)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="index.py", description=__doc__.split("\n\n")[0])
    parser.add_argument("--tokens", default="256k", help="how much is read (default: 256k)")
    parser.add_argument("--layer", type=int, default=-1, help="whose keys (default: the last)")
    parser.add_argument("--topk", type=int, default=64, help="blocks wanted (default: 64)")
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    return parser


def _tokens(text: str) -> int:
    number = parse_length("--tokens", text)
    if number < MIN_TOKENS:
        raise InfLLMError(f"--tokens {text} are too few: at least {MIN_TOKENS} are needed")
    return number


def measure(tokens: int, layer: int, topk: int) -> list[Row]:
    """Measure each index with a quarter, a half and all of the blocks."""
    vectors, queries = harvest(tokens, layer)
    rows = []
    for share in (4, 2, 1):
        rows += compare(vectors[:, : vectors.shape[1] // share], queries, topk)
    return rows


@torch.no_grad()
def harvest(tokens: int, layer: int) -> tuple[Tensor, Tensor]:
    """Return representatives (V, N, D) of a layer of the embedded model, and queries (n, X, D).

    Raises:
        InfLLMError: the model has no such layer.
    """
    model, tokenizer = load(load_config(SHIPPED_CONFIGS / "demo-inf-llm.yaml"))
    layers = model.config.num_hidden_layers
    if not -layers <= layer < layers:
        raise InfLLMError(f"--layer {layer} is out of range: {-layers} to {layers - 1} are there")
    ids = tokenizer(haystack_text(), return_tensors="pt").input_ids
    ids = ids.repeat(1, -(-tokens // ids.shape[1]))[:, :tokens]
    searches: list[tuple[Index, Tensor]] = []
    cache = empty_cache(model)
    search = TorchIndex.search

    def listening(index: TorchIndex, query: Tensor, *rest: Any) -> Any:
        searches.append((index, query[0]))
        return search(index, query, *rest)

    TorchIndex.search = listening  # type: ignore[assignment, method-assign]
    try:
        for _ in prefill(model, ids, cache, 2048):
            pass
    finally:
        TorchIndex.search = search  # type: ignore[method-assign]
    store = cache.memories[layer].rows.members[0].memory.store
    index = store.index.index
    queries = [query for searched, query in searches if searched is index]
    vectors = index._vectors[:, : store.allocator.count]
    return vectors.float(), torch.stack(queries[-QUERIES:]).float()


def compare(vectors: Tensor, queries: Tensor, topk: int) -> list[Row]:
    """Measure and print each index over vectors (V, N, D) with queries (n, X, D)."""
    total = vectors.shape[1]
    indexes: dict[str, Index] = {
        "torch": TorchIndex(),
        "faiss": FaissIndex(),
        "faiss, inverted": InvertedIndex(start=64),
    }
    best, rows = None, []
    for name, index in indexes.items():
        index.put(torch.arange(total), vectors)
        index.search(queries[:1], topk, total, None)  # the one-time work is not timed
        found, times = [], []
        for query in queries:
            started = time.perf_counter()
            found.append(index.search(query[None], topk, total, None)[0][0])
            times.append(1e3 * (time.perf_counter() - started))
        best = best or found
        same = [
            torch.isin(a, b).float().mean()
            for pair in zip(best, found, strict=True)
            for a, b in zip(*pair, strict=True)
        ]
        recall = float(torch.stack(same).mean())
        rows.append(
            Row(name, total, round(statistics.median(times), 3), recall, index.nbytes / 2**20)
        )
        print(
            f"{name:16} {total:9,} blocks  {rows[-1].milliseconds:8.3f} ms"
            f"  recall {recall:.4f}  {rows[-1].mebibytes:7.1f} MiB",
            flush=True,
        )
    return rows


if __name__ == "__main__":
    raise SystemExit(main())
