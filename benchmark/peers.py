"""Compare this package with other programs on documents and questions about them.

    python benchmark/peers.py --model smollm2=FOLDER --lengths 8k,32k --output_dir_path peers

A model is a configuration and a folder with its weights; llama.cpp uses a GGUF file in that folder.
Each program (subject) reads the same tokens in its own process, one subject after another. Measured
are: time to the first token for a new document, and for a second question about it; milliseconds
per token of an answer; peak memory; nats per token of the right answer; whether the answer contains
the right answer. A subject that takes ten times as long as inf-llm is stopped. Rows are kept: an
interrupted run continues, and a run with other settings in the same folder is refused.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # run as a file, from any folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmark.beside import draw, table
from benchmark.beside.documents import Library, Shelf
from benchmark.beside.job import Job
from benchmark.beside.process import Limits, run
from benchmark.beside.subjects import OWN, SUBJECTS, of_server
from benchmark.guard import folder_name, guarded
from benchmark.record import RowFile, claim, rows_done, task_path
from inf_llm.cli.output import require_writable
from inf_llm.errors import InfLLMError
from inf_llm.optional import need
from inf_llm.processor import machine
from inf_llm.registry import accepted
from inf_llm.units import parse_lengths

ROWS = "peers"
SLOWER = 10
"""A subject is stopped after this multiple of the seconds of inf-llm ..."""
MIN_SECONDS = 30.0
"""... but not before this number of seconds."""
_LACKS = {"error": "not measured yet"}
OFTEN, OFTEN_UP_TO = 3, 32 * 1024
"""Number of documents per task up to a length in tokens; beyond that length, one document."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code: 0, or 2 with one message for bad input."""
    args = _parser().parse_args(arguments)
    return guarded(lambda: _run(args), "stopped; the same command goes on from here")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", action="append", metavar="CONFIG[=FOLDER]", help="several")
    parser.add_argument("--lengths", default="8k,32k", help="tokens of a document: 8k,32k")
    parser.add_argument("--tasks", default="number", help="as in `inf-llm fidelity`: number,key")
    parser.add_argument("--subjects", default=",".join(SUBJECTS), help="(default: %(default)s)")
    parser.add_argument("--runs", type=int, help="documents of each (default: 3, 1 beyond 32k)")
    parser.add_argument("--questions", type=int, default=2, help="about each document")
    parser.add_argument("--answer", type=int, default=32, help="least tokens of an answer")
    parser.add_argument("--text", type=Path, help="prose; without it, some that comes along")
    parser.add_argument("--qa-file", type=Path, help="for task qa: questions about --text")
    parser.add_argument("--seed", type=int, default=0, help="of the documents")
    parser.add_argument("--threads", type=int, default=2, help="of each subject")
    parser.add_argument("--llama-server", help="command of llama.cpp's server")
    parser.add_argument("--output_dir_path", required=True, help="folder of the rows")
    parser.add_argument("--table", action="store_true", help="only print the rows that are there")
    parser.add_argument("--plot", type=Path, help="draw the figures against the length")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="of the configurations")
    return parser


@dataclass(frozen=True)
class Cell:
    """A document that is measured with all subjects."""

    model: str
    tokens: int
    task: str
    run: int

    def name(self, subject: str) -> str:
        """Return the id of the row of a subject."""
        return f"{self.model}/{self.tokens}/{self.task}/{self.run}/{subject}"


def _run(args: argparse.Namespace) -> None:
    out = Path(folder_name(args.output_dir_path, "--output_dir_path"))
    require_writable("--plot", args.plot)
    if not args.table:
        _measure(args, out)
    rows = list(rows_done(out, ROWS).values()) if out.is_dir() else []
    if not rows:
        raise InfLLMError(f"{out} has no rows yet: leave --table out to measure some")
    print(table.text(rows))
    if args.plot is not None:
        draw.draw(rows, args.plot)


def _measure(args: argparse.Namespace, out: Path) -> None:
    library = Library.open(args)
    shelves = {shelf.name: shelf for shelf in map(library.shelf, args.model or ["demo-inf-llm"])}
    names, lengths = _names(args.subjects), parse_lengths("--lengths", args.lengths)
    _check(args, names)
    claim(out, {"rules": library.rules()}, {name: each.rules() for name, each in shelves.items()})
    done = rows_done(out, ROWS)
    with RowFile(task_path(out, ROWS)) as file:
        for cell in _cells(args, list(shelves), lengths):
            missing = [name for name in names if "error" in done.get(cell.name(name), _LACKS)]
            if missing:
                _ask_all(cell, missing, shelves[cell.model], args, done, file)


def _names(text: str) -> list[str]:
    names = list(dict.fromkeys(part.strip() for part in text.split(",")))
    for name in names:
        if name not in SUBJECTS:
            raise InfLLMError(f"--subjects: {name!r} is not known; {accepted(name, SUBJECTS)}")
    return sorted(names, key=lambda name: name != OWN)  # OWN first: its times limit the others


def _check(args: argparse.Namespace, names: Sequence[str]) -> None:
    for option in ("runs", "questions", "answer", "threads"):
        value = getattr(args, option)
        if value is not None and value < 1:
            raise InfLLMError(f"--{option} {value} is out of range: it must be at least 1")
    if "bm25" in names:
        need("bm25s", "subject bm25", "peers")
    if any(map(of_server, names)):
        need("httpx", "asking llama.cpp's server", "peers")


def _cells(
    args: argparse.Namespace, models: Sequence[str], lengths: Sequence[int]
) -> Iterator[Cell]:
    tasks = [part.strip() for part in args.tasks.split(",")]
    for tokens in lengths:
        runs = args.runs or (OFTEN if tokens <= OFTEN_UP_TO else 1)
        for model in models:
            for number in range(runs):
                yield from (Cell(model, tokens, task, number) for task in tasks)


def _ask_all(
    cell: Cell,
    names: Sequence[str],
    shelf: Shelf,
    args: argparse.Namespace,
    done: dict[str, dict[str, Any]],
    file: RowFile,
) -> None:
    """Measure the subjects whose rows are missing for a document, one after another."""
    context = shelf.context(cell.task, cell.tokens, cell.run)
    for name in names:
        job = Job(
            subject=name,
            config=shelf.config,
            overrides=shelf.overrides,
            context=context,
            answer=args.answer,
            threads=args.threads,
            server=args.llama_server,
            gguf=shelf.gguf,
            trained=shelf.trained,
        )
        found = _absent(job) or _stopped_before(cell, name, done) or run(job, _limits(cell, done))
        row = {
            "id": cell.name(name),
            "index": len(done),
            "model": cell.model,
            "tokens": cell.tokens,
            "task": cell.task,
            "run": cell.run,
            "subject": name,
            "machine": machine("cpu"),
            **found,
        }
        file.append(row)
        done[row["id"]] = row
        print(f"{row['id']}: {table.line(row)}", file=sys.stderr, flush=True)


def _absent(job: Job) -> dict[str, Any] | None:
    """Return the error of a subject that cannot run here; the next run tries the subject again."""
    if not of_server(job.subject):
        return None
    if job.server is None:
        return {"error": "absent: --llama-server was not given"}
    return {"error": "absent: the model's folder has no GGUF file"} if job.gguf is None else None


def _stopped_before(
    cell: Cell, name: str, done: dict[str, dict[str, Any]]
) -> dict[str, Any] | None:
    """Return a row for a subject that was stopped at this length before, so as to skip it."""
    for row in done.values():
        same = (row["model"], row["tokens"], row["subject"]) == (cell.model, cell.tokens, name)
        if same and row.get("within") == "first":
            return {"stopped": row["stopped"], "within": "first", "as": row["id"]}
    return None


def _limits(cell: Cell, done: dict[str, dict[str, Any]]) -> Limits:
    baseline = done.get(cell.name(OWN), {})
    first, rest = (
        None if baseline.get(name) is None else max(MIN_SECONDS, SLOWER * baseline[name])
        for name in ("first", "rest")
    )
    return Limits(first, rest)


if __name__ == "__main__":
    sys.exit(main())
