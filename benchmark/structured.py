"""Measure answers under JSON schemas: the number of valid answers, and the cost of a token.

    python benchmark/structured.py --config config/qwen2.5-0.5b-inf-llm.yaml --answers 20

For each schema of benchmark/schemas.py, `--answers` answers are sampled. An answer is valid,
invalid (which must not happen), or cut at the maximum length. "Closed" answers reached that length
and were completed by the grammar. The cost of a token is the ratio of its time with a schema to its
time in free text, from pairs of runs in alternating order.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # run as a file, from any folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import torch

from benchmark.guard import guarded
from benchmark.schemas import SCHEMAS
from benchmark.timing.arguments import write_json
from inf_llm.cli.output import require_writable
from inf_llm.config import load_config
from inf_llm.errors import InfLLMError
from inf_llm.generation import Session, answer_ends, choose_layout
from inf_llm.generation.decoding import Decoding, step
from inf_llm.generation.grammar import Constraint, Grammar, Grammars
from inf_llm.generation.options import answer_options
from inf_llm.generation.tokens import vocabulary
from inf_llm.hf.load import load
from inf_llm.optional import need
from inf_llm.processor import machine

TOGETHER = 10
"""Number of answers decoded in one batch."""


class Writer:
    """A generator of answers under grammars.

    Args:
        model: the model.
        tokenizer: its tokenizer.
        longest: maximum number of tokens of an answer.
        temperature: temperature of sampling; 0 for greedy decoding.
    """

    def __init__(self, model: Any, tokenizer: Any, longest: int, temperature: float) -> None:
        self.model, self.tokenizer, self.longest = model, tokenizer, longest
        self._temperature = temperature
        self._layout = choose_layout(tokenizer)
        self._ends = answer_ends(model, self._layout)
        self._grammars = Grammars(tokenizer, vocabulary(model), self._ends)

    def grammar(self, name: str) -> Grammar:
        """Return the grammar of a schema of `SCHEMAS`."""
        return self._grammars.of_schema(SCHEMAS[name][1])

    def asked(self, name: str) -> Session:
        """Return a session that has read the request of a schema."""
        request, schema = SCHEMAS[name]
        text = f"{request} Answer with JSON of this schema: {json.dumps(schema)}"
        prompt = self._layout.prompt([{"role": "user", "content": text}])
        session = Session(self.model, self.tokenizer, control_tokens=True)
        session.read(self.tokenizer(prompt, add_special_tokens=self._layout.adds_special).input_ids)
        return session

    def row(
        self, session: Session, grammar: Grammar | None, seed: int
    ) -> tuple[Decoding, Constraint | None]:
        """Return the row that decodes an answer in `session`, and the constraint of the row."""
        settings: dict[str, Any] = {"eos_token_id": self._ends}
        if self._temperature:
            settings |= {"temperature": self._temperature, "top_k": 0}
        options = answer_options(self.model, self.tokenizer, self.longest, settings)
        constraint = None
        if grammar is not None:
            constraint = grammar.constraint(len(session.ids), self.longest)
            options["logits_processor"] = [constraint]
            options["stopping_criteria"] = [constraint.over]
        generator = torch.Generator(session.tensor([0]).device).manual_seed(seed)
        return Decoding(session, options, generator=generator), constraint

    def ended(self, answer: Decoding, constraint: Constraint | None) -> bool:
        """Return whether an answer ended for a reason other than its maximum length."""
        complete = constraint is not None and constraint.complete
        return complete or answer.new[-1] in (self._ends or ())


def validity(writer: Writer, name: str, answers: int, seed: int) -> dict[str, Any]:
    """Sample answers under a schema; count valid, closed and cut ones, and keep invalid texts."""
    check = need("jsonschema", "benchmark/structured.py", "dev").Draft202012Validator
    validator = check(SCHEMAS[name][1], format_checker=check.FORMAT_CHECKER)
    session, grammar = writer.asked(name), writer.grammar(name)
    row: dict[str, Any] = {"schema": name, "valid": 0, "closed": 0, "cut": 0, "invalid": []}
    row["tokens"] = 0
    for first in range(0, answers, TOGETHER):
        count = min(TOGETHER, answers - first)
        pairs = [writer.row(session.fork(), grammar, seed + first + at) for at in range(count)]
        running = [decoding for decoding, _ in pairs]
        while running := [decoding for decoding in running if not decoding.over]:
            step(running)
        for decoding, constraint in pairs:
            row["tokens"] += len(decoding.new)
            row["closed"] += constraint is not None and constraint.closed
            if writer.ended(decoding, constraint):
                text = writer.tokenizer.decode(decoding.new, skip_special_tokens=True)
                _judge(row, text, validator)
            else:
                row["cut"] += 1
    return row


def _judge(row: dict[str, Any], text: str, validator: Any) -> None:
    try:
        value = json.loads(text)
    except ValueError:
        row["invalid"].append(text)
        return
    if validator.is_valid(value):
        row["valid"] += 1
    else:
        row["invalid"].append(text)


def cost(writer: Writer, names: Sequence[str], rounds: int, seed: int) -> list[float]:
    """Return, for each round, the time of a token under a schema over that in free text."""
    ratios = []
    for number in range(rounds):
        name = names[number % len(names)]
        session, grammar = writer.asked(name), writer.grammar(name)
        pair = (grammar, None) if number % 2 else (None, grammar)
        times = {each is None: _token_time(writer, session, each, seed + number) for each in pair}
        ratios.append(times[False] / times[True])
    return ratios


def _token_time(writer: Writer, session: Session, grammar: Grammar | None, seed: int) -> float:
    """Return the median time of a token of an answer, without the first token."""
    row, _ = writer.row(session.fork(), grammar, seed)
    times = []
    while not row.over:
        started = time.perf_counter()
        step([row])
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:] or times)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code: 0, or 2 with one message for bad input."""
    args = _parser().parse_args(arguments)

    def work() -> None:
        require_writable("--json", args.json)
        if args.answers < 1 or args.rounds < 0 or args.max_new_tokens < 2:
            raise InfLLMError("--answers must be 1 or more, --rounds 0 or more, and an answer 2")
        config = load_config(args.config, args.overrides)
        writer = Writer(*load(config), args.max_new_tokens, args.temperature)
        rows = []
        for name in SCHEMAS:
            rows.append(validity(writer, name, args.answers, args.seed))
            row = rows[-1]
            print(
                f"{name:10} {row['valid']} valid, {row['closed']} closed, {row['cut']} cut, "
                f"{len(row['invalid'])} invalid, {row['tokens']} tokens",
                flush=True,
            )
        ratios = cost(writer, list(SCHEMAS), args.rounds, args.seed)
        if ratios:
            middle, most = statistics.median(ratios), max(ratios)
            print(f"a token costs {middle:.2f} times one of free text, at most {most:.2f}")
        facts = {"hardware": machine("cpu"), "schemas": rows, "ratios": ratios}
        print(facts["hardware"])
        write_json(args.json, facts)

    return guarded(work)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="structured.py", description=__doc__.split("\n\n")[0])
    parser.add_argument("overrides", nargs="*", help="key=value, as for inf-llm run")
    parser.add_argument("--config", default="demo", help="configuration (default: demo)")
    parser.add_argument("--answers", type=int, default=20, help="of each schema (default: 20)")
    parser.add_argument("--rounds", type=int, default=10, help="pairs of timed runs (default: 10)")
    parser.add_argument("--max-new-tokens", type=int, default=256, help="longest (default: 256)")
    parser.add_argument("--temperature", type=float, default=1.0, help="0 is greedy (default: 1)")
    parser.add_argument("--seed", type=int, default=0, help="of the first answer")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    return parser


if __name__ == "__main__":
    sys.exit(main())
