"""Compare int8 weights with the original weights: time per token and loss of the next token.

    python benchmark/rounded.py smollm2 --threads 2 model.path=FOLDER

The model reads a text. Then the tokens that follow are fed one by one, as in decoding, in turns
with the original weights and with int8 weights. The loss is the negative log-likelihood of the
right next token in nats; `nats lost` is the mean increase with int8 weights, shown with its
standard error over the tokens.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # run as a file, from any folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import torch
from torch import Tensor

from benchmark.guard import guarded
from benchmark.timing.arguments import set_threads, write_json
from inf_llm.cli.options import load_quietly
from inf_llm.cli.output import require_writable
from inf_llm.config import load_config
from inf_llm.demo.trial import haystack_text
from inf_llm.errors import InfLLMError
from inf_llm.generation import Session, encode
from inf_llm.generation.prefill import feed
from inf_llm.hf.dtype import dtype_name
from inf_llm.hf.weights import restore_weights, round_weights
from inf_llm.processor import machine
from inf_llm.units import parse_length


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code: 0, or 2 with one message for bad input."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", help="YAML file, or a name that `inf-llm configs` lists")
    parser.add_argument("overrides", nargs="*", help="model.path=FOLDER")
    parser.add_argument("--context", default="2k", help="tokens that are read first")
    parser.add_argument("--tokens", type=int, default=256, help="fed one by one in each turn")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write the figures here too")
    return guarded(lambda: _run(parser.parse_intermixed_args(arguments)))


def _run(args: argparse.Namespace) -> None:
    context = parse_length("--context", args.context)
    require_writable("--json", args.json)
    if args.tokens < 2 or args.rounds < 1:
        raise InfLLMError("--tokens must be 2 or more, and --rounds 1 or more")
    set_threads(args.threads)
    config = load_config(args.config, args.overrides)
    model, tokenizer = load_quietly(config)
    needed = args.rounds * args.tokens + 1
    text = encode(tokenizer, haystack_text())
    if len(text) < context + needed:
        raise InfLLMError(f"the text has {len(text):,} tokens, {context + needed:,} are needed")
    session = Session(model, tokenizer, config.chunk_size)
    session.read(text[:context])
    rounds = [
        _round(session, text[first : first + args.tokens + 1])
        for first in range(context, context + needed - 1, args.tokens)
    ]
    facts = {"machine": machine("cpu"), "dtype": dtype_name(model.dtype), **_figures(rounds)}
    write_json(args.json, facts)
    for name, value in facts.items():
        print(f"{name:<24} {value}")


def _round(session: Session, tokens: list[int]) -> dict[str, tuple[float, Tensor]]:
    """Return the median seconds per token and the nats of each token, by kind of weights."""
    measured = {"as they are": _fed(session.fork(), tokens)}
    round_weights(session.model)
    measured["int8"] = _fed(session.fork(), tokens)
    restore_weights(session.model)
    return measured


@torch.no_grad()
def _fed(session: Session, tokens: list[int]) -> tuple[float, Tensor]:
    rest = session.ids[session.fed :]
    if rest:
        feed(session.model, session.tensor(rest), session.cache)
    seconds, nats = [], []
    for token, following in itertools.pairwise(tokens):
        began = time.perf_counter()
        logits = feed(session.model, session.tensor([token]), session.cache)
        seconds.append(time.perf_counter() - began)
        nats.append(-logits[0, -1].float().log_softmax(-1)[following])
    return statistics.median(seconds), torch.stack(nats)


def _figures(rounds: Sequence[dict[str, tuple[float, Tensor]]]) -> dict[str, Any]:
    plain, rounded = ([each[kind] for each in rounds] for kind in ("as they are", "int8"))
    ratios = [a[0] / b[0] for a, b in zip(plain, rounded, strict=True)]
    lost = torch.cat([b[1] - a[1] for a, b in zip(plain, rounded, strict=True)])
    return {
        "ms a token": round(1e3 * statistics.median(each[0] for each in plain), 1),
        "ms a token, int8": round(1e3 * statistics.median(each[0] for each in rounded), 1),
        "times as fast": [round(ratio, 2) for ratio in ratios],
        "nats a token": round(float(torch.cat([each[1] for each in plain]).mean()), 4),
        "nats lost": round(float(lost.mean()), 4),
        "standard error": round(float(lost.std() / len(lost) ** 0.5), 4),
    }


if __name__ == "__main__":
    sys.exit(main())
