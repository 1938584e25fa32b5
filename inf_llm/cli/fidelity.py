"""`inf-llm fidelity`: the difference between a memory and full attention."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer
from rich.console import Console

from inf_llm.cli.documents import open_document
from inf_llm.cli.failures import reported, say
from inf_llm.cli.options import Config, Debug, Model, Overrides, configuration, path_option
from inf_llm.cli.output import require_output
from inf_llm.cli.progress import TokenProgress
from inf_llm.config import RunConfig, suited
from inf_llm.errors import MissingExtraError
from inf_llm.units import parse_length, short

if TYPE_CHECKING:
    from inf_llm.fidelity.readers import Reader
    from inf_llm.fidelity.rows import Results
    from inf_llm.fidelity.run import Run

_WIDE = 160
"""Width of the table in characters if the output is not a terminal."""


@reported
def fidelity(
    config: Config = None,
    model: Model = None,
    against: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            "--against",
            help="Another rule, as often as wanted: a configuration, settings laid on the first "
            "rule ('topk=32 selection=query-head'), both, or 'oracle'.",
        ),
    ] = None,
    length: Annotated[
        str, typer.Option("--length", help="Tokens of a context with its question: 4k, 16k.")
    ] = "4k",
    tasks: Annotated[
        str,
        typer.Option(
            "--tasks", help="number, key, copy, qa, turns, or needle families: niah_multikey_1, ..."
        ),
    ] = "number,key,copy",
    contexts: Annotated[
        int, typer.Option("--contexts", "-n", min=1, help="Contexts of each task.")
    ] = 2,
    questions: Annotated[
        int, typer.Option("--questions", min=1, help="Questions about each context.")
    ] = 4,
    seed: Annotated[
        int,
        typer.Option("--seed", help="Of the contexts; those from 1000 on are not for choosing."),
    ] = 0,
    read: Annotated[
        str,
        typer.Option(
            "--read",
            help="own: every rule reads in its own way. dense: full attention reads for all.",
        ),
    ] = "own",
    oracle: Annotated[
        bool, typer.Option("--oracle", help="Also choose blocks by their true mass.")
    ] = False,
    text: Annotated[
        Optional[Path],  # noqa: UP045
        path_option("--text", help="Prose to read; without it, some that comes along."),
    ] = None,
    qa_file: Annotated[
        Optional[Path],  # noqa: UP045
        path_option("--qa-file", help="For task qa: a line of JSON per question about --text."),
    ] = None,
    out: Annotated[
        Optional[Path],  # noqa: UP045
        path_option("--out", help="Folder for rows and picture; a run that was cut off goes on."),
    ] = None,
    overrides: Overrides = None,
    debug: Debug = False,
) -> None:
    """Compare rules with full attention: likelihood of right answers, divergence, recall.

    The model reads contexts with several facts, and each fact is asked for. The table shows how
    much of the gap between sinks and window alone and full attention a rule closes. Full attention
    is measured up to the length that the model was trained for.
    """
    require_output()
    first = configuration(config, model, overrides)
    from inf_llm.fidelity.inputs import read_questions, read_rules
    from inf_llm.fidelity.rows import Results
    from inf_llm.fidelity.run import Plan, rules

    plan = Plan(
        tasks=tuple(dict.fromkeys(part.strip() for part in tasks.split(","))),
        length=parse_length("--length", length),
        contexts=contexts,
        questions=questions,
        seed=seed,
        read=read,
    )
    others = [*(against or []), *(["oracle"] if oracle else [])]
    readers = read_rules(config or suited(model or ""), first, overrides or [], others)
    prose = _prose(text)
    pairs = () if qa_file is None else read_questions(qa_file)
    results = Results(out, plan.asked(first.model.path, prose), rules(readers))
    run = _run(plan, first, readers, prose, pairs)
    _measure(
        run,
        results,
        f"{first.model.path}, {short(plan.length)}, read: {plan.read}, seed {seed}",
        readers[0].name,
    )
    if out is not None:
        _draw(results.rows, out)


def _prose(file: Path | None) -> str:
    if file is None:
        from inf_llm.demo import haystack_text

        return haystack_text()
    return open_document(file).text


def _run(plan: Any, first: RunConfig, readers: Sequence[Reader], prose: str, pairs: Any) -> Run:
    from inf_llm.fidelity.drafts import Source
    from inf_llm.fidelity.run import Run, trained_length
    from inf_llm.generation import choose_layout
    from inf_llm.hf.load import load_bare
    from inf_llm.needles.haystack import haystack_of

    say(f"loading {first.model.path}")
    model, tokenizer = load_bare(first)
    layout = choose_layout(tokenizer, first.conv_type, first.control_tokens)
    source = Source(haystack_of(prose), plan.questions, pairs)
    run = Run(plan, model, tokenizer, layout, readers, source, first.chunk_size)
    if not run.full:
        say(
            f"full attention is left out: the model was trained for {trained_length(model):,} "
            f"tokens, and {short(plan.length)} are read, so there is no gap, KL or recall"
        )
    return run


def _measure(run: Run, results: Results, title: str, first: str) -> None:
    from inf_llm.fidelity.report import table
    from inf_llm.fidelity.summary import summaries

    if results.rows:
        say(f"{len(results.rows):,} rows are there already")
    with TokenProgress(lambda: "", "steps", ("measuring", "measured")) as progress:
        run.measure(results, progress)
    say(f"measured in {progress.seconds:,.0f} s")
    console = Console(width=None if Console().is_terminal else _WIDE)
    console.print(table(summaries(results.rows, first), title))


def _draw(rows: Sequence[dict[str, Any]], out: Path) -> None:
    from inf_llm.fidelity.picture import draw

    try:
        if draw(rows, out / "recall.png"):
            say(f"wrote {out / 'recall.png'}")
    except MissingExtraError as error:
        say(f"no picture: {error}")
