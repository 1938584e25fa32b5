"""`inf-llm ppl`: mean negative log-likelihood by position."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from inf_llm.cli.documents import open_document
from inf_llm.cli.failures import reported, say
from inf_llm.cli.options import (
    Config,
    Debug,
    File,
    Force,
    Model,
    Overrides,
    configuration,
    load_with_progress,
)
from inf_llm.cli.output import require_output
from inf_llm.cli.progress import TokenProgress
from inf_llm.units import pace, short

if TYPE_CHECKING:
    from inf_llm.config import RunConfig
    from inf_llm.generation import Perplexity


@reported
def ppl(
    config: Config = None,
    model: Model = None,
    file: File = None,
    max_tokens: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option("--max-tokens", min=2, help="Read only so many tokens of the text."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    force: Force = False,
    overrides: Overrides = None,
    debug: Debug = False,
) -> None:
    """Print how well the model predicts a text, by position: 0-256, 256-512, 512-1k, ...

    "fresh" is the loss of the same tokens in short contexts of 512 tokens, which shows how hard the
    text is there. A ratio (loss / fresh) of about 1 or less means that the model still predicts as
    well at that position. With full attention the ratio grows past the trained length.
    """
    require_output()
    chosen = configuration(config, model, overrides)
    from inf_llm.generation import as_text, encode, measure_perplexity
    from inf_llm.plan.refuse import require_room

    text = open_document(file).text
    loaded, tokenizer = load_with_progress(chosen, force)
    content = text if chosen.control_tokens else as_text(tokenizer, text)
    ids = encode(tokenizer, content)[:max_tokens]
    if not force:
        require_room(chosen, len(ids), loaded.dtype)
    with TokenProgress(lambda: "") as progress:
        perplexity = measure_perplexity(loaded, ids, chosen.chunk_size, progress)
    if as_json:
        typer.echo(json.dumps(_record(perplexity, chosen), indent=2))
    else:
        _print_table(perplexity)
    tokens = perplexity.whole.tokens
    say(f"predicted {tokens:,} tokens in {pace(tokens, perplexity.seconds)}")


def _record(perplexity: Perplexity, config: RunConfig) -> dict[str, Any]:
    return {**dataclasses.asdict(perplexity), "ratio": perplexity.ratio, "config": config.to_dict()}


def _print_table(perplexity: Perplexity) -> None:
    typer.echo(f"{'position':>12}  {'tokens':>9}  {'nats':>8}  {'fresh':>8}  {'ratio':>7}")
    names = [f"{short(bucket.start)}-{short(bucket.end)}" for bucket in perplexity.buckets]
    for name, row in zip((*names, "all"), (*perplexity.buckets, perplexity.whole), strict=True):
        numbers = f"{row.nll:>8.4f}  {row.fresh:>8.4f}  {row.ratio:>7.3f}"
        typer.echo(f"{name:>12}  {row.tokens:>9,}  {numbers}")
    typer.echo(f"last bucket / the same tokens in fresh contexts: {perplexity.ratio:.3f}")
