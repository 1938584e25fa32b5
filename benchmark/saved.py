"""Compare opening a saved memory with reading its text: time, exact logits, memory of processes.

    python benchmark/saved.py --tokens 300k --folder /tmp/memory

The embedded model reads a text with a pass key and saves the memory; further processes open it.
With --disk BYTES the model reads the text once more, with its blocks on a disk and at most BYTES of
them in host memory. Each step runs in its own process. Memory sizes are measured on Linux only:
`anonymous` is the anonymous memory of a process. `second_adds` is the increase of the summed
proportional set sizes of two processes when the second also opens the memory.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # run as a file, from any folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    from inf_llm.cli.output import set_waiting

    set_waiting()

import torch

from benchmark import process_memory
from benchmark.guard import guarded
from benchmark.timing.arguments import set_threads, write_json
from inf_llm.cli.options import load_quietly
from inf_llm.cli.output import require_writable
from inf_llm.config import load_config
from inf_llm.demo.trial import haystack_text
from inf_llm.generation import Session, encode
from inf_llm.generation.prefill import prefill
from inf_llm.processor import machine
from inf_llm.saved.folder import check_folder
from inf_llm.saved.manifest import read_manifest
from inf_llm.units import parse_bytes, parse_length

FACT = " The pass key is 48213. Remember it. "
QUESTION = "\n\nWhat is the pass key? The pass key is"
ANSWER = 12
_opened: list[Any] = []  # sessions that a process keeps open between its steps


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code: 0, or 2 with one message for bad input."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", default="demo-inf-llm", help="of a model that finds pass keys")
    parser.add_argument("--tokens", default="100k", help="length of the text: 100k, 1m")
    parser.add_argument("--folder", required=True, type=Path, help="for the memory, which stays")
    parser.add_argument("--disk", help="host memory for blocks on a disk: 100MB")
    parser.add_argument("--open", type=int, help="only open the memory, in so many new processes")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write the figures here too")
    args = parser.parse_args(arguments)
    return guarded(lambda: _run(args))


def _run(args: argparse.Namespace) -> None:
    tokens = parse_length("--tokens", args.tokens)
    host = None if args.disk is None else parse_bytes("--disk", args.disk)
    require_writable("--json", args.json)
    check_folder(args.folder)
    common = args.config, args.threads, str(args.folder)
    if args.open is not None:
        _report(args.json, _opened_often(args.open, common))
        return
    read = _step(_read, *common, tokens, None)
    facts = {"machine": machine("cpu"), "tokens": tokens, **_bare(read)}
    facts["bytes"] = read_manifest(args.folder).nbytes
    with _process() as first:
        opened = first.submit(_open, *common).result()
        facts |= {**_bare(opened), "same": opened["logits"] == read["logits"]}
        if process_memory.proportional() is not None:
            apart, shared = _together(first, _idle, *common), _together(first, _open, *common)
            facts |= {"second_adds": shared - apart}
    if host is not None:
        far = _step(_read, *common, tokens, host)
        facts["disk"] = {**_bare(far), "same": far["logits"] == read["logits"]}
    _report(args.json, facts)


def _opened_often(times: int, common: tuple[Any, ...]) -> dict[str, Any]:
    """Return median times over processes that open the memory one after another."""
    opened = [_step(_open, *common) for _ in range(times)]
    names = "opening", "first_token", "answering"
    medians = {name: statistics.median(each[name] for each in opened) for name in names}
    return {"machine": machine("cpu"), "processes": times, **medians}


def _report(json: Path | None, facts: dict[str, Any]) -> None:
    write_json(json, facts)
    for name, value in facts.items():
        print(f"{name:<14} {value}")


def _bare(figures: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in figures.items() if key != "logits"}


def _process() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))


def _step(work: Callable[..., Any], *args: Any) -> Any:
    """Return the result of a function that runs in its own process."""
    with _process() as process:
        return process.submit(work, *args).result()


def _together(first: ProcessPoolExecutor, work: Callable[..., Any], *args: Any) -> int:
    """Return the summed proportional set sizes of `first` and of a process that ran `work`."""
    with _process() as second:
        second.submit(work, *args).result()
        return sum(
            each.submit(process_memory.proportional).result() or 0 for each in (first, second)
        )


def _model(config: str, threads: int, folder: str, host: int | None) -> tuple[Any, Any]:
    set_threads(threads)
    tier = f"model.tier={{name: disk, path: {folder}.tier, host_bytes: '{host}'}}"
    on_disk = [] if host is None else [tier]
    return load_quietly(load_config(config, ["model.dtype=float32", *on_disk]))


def _read(config: str, threads: int, folder: str, tokens: int, host: int | None) -> dict[str, Any]:
    """Read the text, save its memory unless its blocks are on a disk, and ask."""
    model, tokenizer = _model(config, threads, folder, host)
    fact = encode(tokenizer, FACT, add_special_tokens=False)
    text = encode(tokenizer, haystack_text())
    text = (text + text[1:] * (tokens // len(text)))[: tokens - len(fact)]
    session, began = Session(model, tokenizer), time.perf_counter()
    session.read(text[: tokens // 3] + fact + text[tokens // 3 :])
    took = {"reading": time.perf_counter() - began}
    if host is None:
        began = time.perf_counter()
        session.save(folder, overwrite=True)
        took["saving"] = time.perf_counter() - began
    return (
        took
        | _asked(session)
        | {"anonymous": process_memory.anonymous(), "held": str(session.stats())}
    )


def _open(config: str, threads: int, folder: str) -> dict[str, Any]:
    """Open the memory and ask; the memory stays open in this process."""
    model, tokenizer = _model(config, threads, folder, None)
    began = time.perf_counter()
    session = Session.load(folder, model, tokenizer)
    took = {"opening": time.perf_counter() - began}
    session.fork().ask(QUESTION, 1)
    took["first_token"] = time.perf_counter() - began
    _opened.append(session)
    return took | _asked(session)


@torch.no_grad()
def _asked(session: Session) -> dict[str, Any]:
    """Return the answer, its time, and the bytes of the logits of the question."""
    began = time.perf_counter()
    answer = session.fork().ask(QUESTION, ANSWER)
    seconds = time.perf_counter() - began
    twin = session.fork()
    question = encode(session.tokenizer, QUESTION, add_special_tokens=False)
    ids = torch.tensor([twin.ids[twin.fed :] + question])
    parts = [logits for _, logits in prefill(session.model, ids, twin.cache, 512, 0)]
    bits = torch.cat(parts, 1).numpy().tobytes()
    return {"answer": answer.text, "answering": seconds, "logits": bits}


def _idle(config: str, threads: int, folder: str) -> None:
    """Load the model in this process, and ask it without a text."""
    session = Session(*_model(config, threads, folder, None))
    _asked(session)
    _opened.append(session)


if __name__ == "__main__":
    sys.exit(main())
