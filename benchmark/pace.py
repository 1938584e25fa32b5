"""Compare the times that `inf-llm plan --calibrate` predicts with measured ones, in one process.

python benchmark/pace.py demo-inf-llm --tokens 256k
python benchmark/pace.py smollm2-inf-llm --tokens 32k --threads 2 model.path=FOLDER
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):  # run as a file, from any folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmark.guard import guarded
from benchmark.timing.arguments import set_threads, write_json
from inf_llm.cli.options import load_quietly
from inf_llm.cli.output import require_writable
from inf_llm.config import load_config
from inf_llm.demo.trial import haystack_text
from inf_llm.generation import Session, encode
from inf_llm.plan.calibrate import calibrate
from inf_llm.processor import machine
from inf_llm.units import parse_length

ANSWER = 16


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code: 0, or 2 with one message for bad input."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", help="YAML file, or a name that `inf-llm configs` lists")
    parser.add_argument("overrides", nargs="*", help="model.path=FOLDER")
    parser.add_argument("--tokens", default="32k", help="length of the text: 32k, 256k")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write the figures here too")
    return guarded(lambda: _run(parser.parse_intermixed_args(arguments)))


def _run(args: argparse.Namespace) -> None:
    tokens = parse_length("--tokens", args.tokens)
    require_writable("--json", args.json)
    set_threads(args.threads)
    config = load_config(args.config, args.overrides)
    model, tokenizer = load_quietly(config)
    text = encode(tokenizer, haystack_text())
    text = (text + text[1:] * (tokens // len(text)))[:tokens]
    pace = calibrate(model, tokens, config.chunk_size)
    session, began = Session(model, tokenizer, config.chunk_size), time.perf_counter()
    session.read(text)
    reading = time.perf_counter() - began
    session.ask("", max_new_tokens=2)  # the one-time work of the first answer, not timed
    began = time.perf_counter()
    session.ask("", max_new_tokens=ANSWER, min_new_tokens=ANSWER)
    answering = (time.perf_counter() - began) / ANSWER
    facts = {
        "machine": machine("cpu"),
        "dtype": pace.dtype,
        "tokens": tokens,
        "reading": reading,
        "reading_planned": pace.reading(tokens) / reading,
        "answering": answering,
        "answering_planned": pace.answering(tokens) / answering,
    }
    write_json(args.json, facts)
    for name, value in facts.items():
        print(f"{name:<18} {value}")


if __name__ == "__main__":
    sys.exit(main())
