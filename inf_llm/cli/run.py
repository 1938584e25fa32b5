"""`inf-llm run`: read a text of any length, then answer."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from inf_llm.checks import check_question
from inf_llm.cli.failures import reported, say
from inf_llm.cli.options import (
    Config,
    Debug,
    File,
    Force,
    Model,
    Overrides,
    configuration,
    load_aloud,
    memory_line,
)
from inf_llm.cli.output import argument_text, require_output, require_writable
from inf_llm.cli.progress import TokenProgress
from inf_llm.conversation import BETWEEN, USER
from inf_llm.errors import TextError
from inf_llm.units import pace, size

if TYPE_CHECKING:
    from inf_llm.config import RunConfig
    from inf_llm.generation import Answer, Layout, Session
    from inf_llm.hf.trace import trace as Tracing


@reported
def run(
    prompt: Annotated[
        str,
        typer.Option(
            "--prompt", "-p", help="Question after the text; '' lets the model continue the text."
        ),
    ],
    config: Config = None,
    model: Model = None,
    file: File = None,
    max_new_tokens: Annotated[
        int, typer.Option("--max-new-tokens", "-n", min=1, help="Most tokens of the answer.")
    ] = 128,
    trace: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            "--trace", help="Write a report of what was recalled for each word to this HTML file."
        ),
    ] = None,
    force: Force = False,
    overrides: Overrides = None,
    debug: Debug = False,
) -> None:
    """Read a text of any length, then answer a prompt about it.

    The answer goes to standard output, everything else to standard error.
    Without --file the text comes from standard input, if that is not a terminal; where nothing
    comes from there, the prompt alone is answered.
    """
    require_output()
    require_writable("--trace", trace)
    prompt = argument_text("--prompt", prompt)
    if prompt:
        check_question("--prompt", prompt)
    chosen = configuration(config, model, overrides)
    from transformers import TextStreamer

    from inf_llm.generation import Session, answer_ends, choose_layout, piped_text, read_text
    from inf_llm.hf.trace import trace as tracing
    from inf_llm.plan.refuse import require_room

    text = piped_text() if file is None else read_text(file)
    if not (text or prompt):
        raise TextError("nothing to read and nothing to ask: give --file, or a --prompt")
    loaded, tokenizer = load_aloud(chosen, force)
    layout = choose_layout(tokenizer, chosen.conv_type)
    message = BETWEEN.join(part for part in (text, prompt) if part)
    ids = _prompt_ids(tokenizer, layout, message, chosen, max_new_tokens)
    if not force:
        require_room(chosen, len(ids) + max_new_tokens, loaded.dtype)
    watch = None if trace is None else tracing(loaded, prompts=False)
    session = Session(loaded, tokenizer, chosen.chunk_size)
    with TokenProgress(lambda: memory_line(session.stats())) as progress:
        session.read(ids, progress)
        reading = pace(session.fed, progress.seconds)
    with watch or contextlib.nullcontext():
        answer = session.ask(
            max_new_tokens=max_new_tokens,
            streamer=TextStreamer(tokenizer, skip_special_tokens=True),
            eos_token_id=answer_ends(loaded, layout),
        )
    say(_summary(session, answer, len(ids), reading))
    if watch is not None and trace is not None:
        _report(watch, session, len(ids), trace, f"{chosen.model.path}: {prompt}")


def _prompt_ids(
    tokenizer: Any, layout: Layout, message: str, config: RunConfig, max_new_tokens: int
) -> list[int]:
    from inf_llm.generation import encode, fit

    prompt = layout.prompt([{"role": USER, "content": message}])
    ids = encode(tokenizer, prompt, layout.adds_special)
    kept = fit(ids, config.max_len - max_new_tokens, config.truncation)
    if len(kept) < len(ids):
        say(f"cut the prompt from {len(ids):,} to {len(kept):,} tokens ({config.truncation})")
    return kept


def _report(watch: Tracing, session: Session, prompt_tokens: int, path: Path, title: str) -> None:
    from inf_llm.generation import save_report

    save_report(
        watch, session.ids, session.tokenizer, path, prompt_tokens=prompt_tokens, title=title[:300]
    )
    say(f"what was recalled for each word: {path}")


def _summary(session: Session, answer: Answer, tokens: int, reading: str) -> str:
    stats, new = session.stats(), len(answer.token_ids)
    recalled = stats.hits + stats.misses
    parts = [
        f"read {tokens:,} tokens in {reading}",
        f"answered {new} in {pace(new, answer.seconds)}",
        f"memory {memory_line(stats)}",
    ]
    if recalled:
        parts.append(f"index {size(stats.index_bytes)}")
        parts.append(f"{stats.blocks:,} blocks, {stats.hits / recalled:.0%} of recalls at hand")
    return "; ".join(parts)
